"""A second graph that tells what each place of the picture adds to each label, computed by the engine alone.

Where a network averages its last feature map and judges the average, the judgement without one place can be had exactly: take
that place out of the average, and let the head judge again. The difference of the logits is what the place adds; what it
adds to all labels alike is left out, since scores do not depend on it. For a head of one linear layer this is the class
activation map (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016), less the average over labels;
for deeper heads it stays what it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.export.onnx_graph import INPUT_NAME, OUTPUT_NAME

__all__ = ["EXPLAIN_FILE", "MAPS_NAME", "explaining_graph"]

EXPLAIN_FILE = "explain/maps.onnx"
MAPS_NAME = "maps"
_MEAN, _ROWS = "explain_mean", "explain_rows"


def explaining_graph(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """`model` for one picture, with a second output: `maps`, float32, axes [batch, class, row, column], zero on average
    over classes.

    Args:
        model: Float, as :func:`edgewright.export.onnx_graph.to_onnx` makes it.

    Returns:
        None where the network does not judge by the average of a feature map alone.
    """
    graph = model.graph
    pools = [position for position, node in enumerate(graph.node) if _averages_places(node)]
    if not pools:
        return None
    pool, body, head = graph.node[pools[-1]], list(graph.node[: pools[-1]]), list(graph.node[pools[-1] + 1 :])
    known = {pool.output[0], *(tensor.name for tensor in graph.initializer)}
    for node in head:
        if not known.issuperset(node.input):
            return None
        known.update(node.output)
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    if pool.input[0] not in shapes:
        return None
    channels, rows, columns = (axis.dim_value for axis in list(shapes[pool.input[0]].dim)[1:])
    places, classes = rows * columns, graph.output[0].type.tensor_type.shape.dim[1].dim_value
    constants = {
        "explain_planes": np.array([channels, places], np.int64),
        "explain_columns": np.array([places, channels, 1, 1], np.int64),
        "explain_pooled": np.array([places + 1, channels] + [1, 1] * (pool.op_type == "GlobalAveragePool"), np.int64),
        "explain_share": np.float32(1 / places),
        "explain_first": np.array([0], np.int64),
        "explain_second": np.array([1], np.int64),
        "explain_end": np.array([places + 1], np.int64),
        "explain_shape": np.array([1, classes, rows, columns], np.int64),
    }

    def step(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], output, **attributes)

    without = [
        step("GlobalAveragePool", [pool.input[0]], _MEAN),
        step("Reshape", [pool.input[0], "explain_planes"], "explain_by_channel"),
        step("Transpose", ["explain_by_channel"], "explain_by_place", perm=[1, 0]),
        step("Reshape", ["explain_by_place", "explain_columns"], "explain_places"),
        step("Mul", ["explain_places", "explain_share"], "explain_parts"),
        step("Sub", [_MEAN, "explain_parts"], "explain_without"),
        step("Concat", [_MEAN, "explain_without"], "explain_averages", axis=0),
        step("Reshape", ["explain_averages", "explain_pooled"], pool.output[0]),
    ]
    judged = []
    for node in head:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.output[:] = [_ROWS if name == OUTPUT_NAME else name for name in node.output]
        judged.append(copied)
    compared = [
        step("Slice", [_ROWS, "explain_first", "explain_second", "explain_first"], OUTPUT_NAME),
        step("Slice", [_ROWS, "explain_second", "explain_end", "explain_first"], "explain_others"),
        step("Sub", [OUTPUT_NAME, "explain_others"], "explain_added"),
        step("ReduceMean", ["explain_added"], "explain_average_label", axes=[1], keepdims=1),
        step("Sub", ["explain_added", "explain_average_label"], "explain_added_to_one"),
        step("Transpose", ["explain_added_to_one"], "explain_by_class", perm=[1, 0]),
        step("Reshape", ["explain_by_class", "explain_shape"], MAPS_NAME),
    ]
    source = onnx.ValueInfoProto()
    source.CopyFrom(graph.input[0])
    source.type.tensor_type.shape.dim[0].dim_value = 1
    explained = helper.make_model(
        helper.make_graph(
            [*body, *without, *judged, *compared],
            "explained",
            [source],
            [
                helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [1, classes]),
                helper.make_tensor_value_info(MAPS_NAME, TensorProto.FLOAT, [1, classes, rows, columns]),
            ],
            [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
        ),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name="edgewright",
    )
    assert source.name == INPUT_NAME
    onnx.checker.check_model(explained, full_check=True)
    return explained


def _averages_places(node: onnx.NodeProto) -> bool:
    """Whether a node of opset 17 averages rows and columns away: to 1 x 1, or altogether."""
    if node.op_type == "GlobalAveragePool":
        return True
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return (
        node.op_type == "ReduceMean"
        and attributes.get("keepdims") == 0
        and sorted(attributes.get("axes", ())) in ([2, 3], [-2, -1])
    )
