"""The lint: silent about a file that TensorRT takes, and for each of its rules a file that breaks just that one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from edgewright.export.trt_lint import lint_trt

Change = Callable[[onnx.ModelProto], object]
Array = np.ndarray[Any, Any]


def quantized_model() -> onnx.ModelProto:
    """A convolution as TensorRT wants it: cast first, symmetric int8, weights per channel, bias in float."""
    constants: dict[str, Array] = {
        "in_scale": np.array(0.5, np.float32),
        "in_zero": np.array(0, np.int8),
        "weight": np.ones((4, 3, 3, 3), np.int8),
        "w_scale": np.full(4, 0.01, np.float32),
        "w_zero": np.zeros(4, np.int8),
        "bias": np.zeros(4, np.float32),
        "shape": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["planes", "in_scale", "in_zero"], ["in_q"], "q"),
        helper.make_node("DequantizeLinear", ["in_q", "in_scale", "in_zero"], ["in_dq"], "dq"),
        helper.make_node("DequantizeLinear", ["weight", "w_scale", "w_zero"], ["w_dq"], "w", axis=0),
        helper.make_node("Conv", ["in_dq", "w_dq", "bias"], ["conv"], "conv"),
        helper.make_node("HardSwish", ["conv"], ["act"], "act"),
        helper.make_node("GlobalAveragePool", ["act"], ["pooled"], "pool"),
        helper.make_node("Reshape", ["pooled", "shape"], ["logits"], "flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(entry for entry in model.graph.node if entry.name == name)


def set_constant(model: onnx.ModelProto, name: str, value: Array) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def insert_before(model: onnx.ModelProto, name: str, new: NodeProto) -> None:
    nodes = list(model.graph.node)
    nodes.insert(next(index for index, entry in enumerate(nodes) if entry.name == name), new)
    copies = [NodeProto.FromString(entry.SerializeToString()) for entry in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def asymmetric(model: onnx.ModelProto) -> None:
    set_constant(model, "in_zero", np.array(3, np.int8))


def unsigned(model: onnx.ModelProto) -> None:
    set_constant(model, "in_zero", np.array(0, np.uint8))


def per_channel_activation(model: onnx.ModelProto) -> None:
    set_constant(model, "in_scale", np.full(3, 0.5, np.float32))
    set_constant(model, "in_zero", np.zeros(3, np.int8))


def int32_bias(model: onnx.ModelProto) -> None:
    set_constant(model, "bias", np.zeros(4, np.int32))
    set_constant(model, "b_zero", np.zeros(4, np.int32))
    new = helper.make_node("DequantizeLinear", ["bias", "w_scale", "b_zero"], ["b_dq"], "b", axis=0)
    insert_before(model, "conv", new)
    node(model, "conv").input[2] = "b_dq"


def computed_scale(model: onnx.ModelProto) -> None:
    insert_before(model, "q", helper.make_node("Neg", ["in_scale"], ["computed"], "neg"))
    node(model, "q").input[1] = "computed"


def without_zero_point(model: onnx.ModelProto) -> None:
    del node(model, "w").input[2:]


def wrong_axis(model: onnx.ModelProto) -> None:
    node(model, "w").attribute[0].i = 1


def fewer_zero_points(model: onnx.ModelProto) -> None:
    set_constant(model, "w_zero", np.zeros(1, np.int8))


def transpose_first(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[1].op_type = "Transpose", "Cast"
    first, second = [NodeProto.FromString(n.SerializeToString()).attribute[0] for n in model.graph.node[:2]]
    for entry, attribute in ((model.graph.node[0], second), (model.graph.node[1], first)):
        del entry.attribute[:]
        entry.attribute.append(attribute)


def cast_to_int(model: onnx.ModelProto) -> None:
    node(model, "cast").attribute[0].i = TensorProto.INT32
    insert_before(model, "q", helper.make_node("Cast", ["planes"], ["again"], "recast", to=TensorProto.FLOAT))
    node(model, "q").input[0] = "again"


def unknown_operator(model: onnx.ModelProto) -> None:
    node(model, "act").op_type = "Hardmax"


def foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def opset_18(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def double(model: onnx.ModelProto) -> None:
    set_constant(model, "unused", np.zeros(2, np.float64))


def beyond_int32(model: onnx.ModelProto) -> None:
    set_constant(model, "unused", np.array([1, 2**40], np.int64))


def dynamic_height(model: onnx.ModelProto) -> None:
    axis = model.graph.input[0].type.tensor_type.shape.dim[1]
    axis.Clear()
    axis.dim_param = "height"


def pooling_indices(model: onnx.ModelProto) -> None:
    pool = node(model, "pool")
    pool.op_type = "MaxPool"
    pool.attribute.append(helper.make_attribute("kernel_shape", [6, 6]))
    pool.output.append("indices")


def axes_as_an_input(model: onnx.ModelProto) -> None:
    set_constant(model, "axes", np.array([2, 3], np.int64))
    pool = node(model, "pool")
    pool.op_type = "ReduceMean"
    pool.input.append("axes")


def computed_axes(model: onnx.ModelProto) -> None:
    set_constant(model, "axes", np.array([2, 3], np.int64))
    insert_before(model, "pool", helper.make_node("Abs", ["axes"], ["computed"], "abs"))
    pool = node(model, "pool")
    pool.op_type = "ReduceSum"
    pool.input.append("computed")


def invalid(model: onnx.ModelProto) -> None:
    node(model, "conv").input[1] = "nobody"


BROKEN: list[tuple[Change, str]] = [
    (asymmetric, r"node 'q' \(QuantizeLinear\): it has the zero point 3; expected 0"),
    (unsigned, r"node 'q' \(QuantizeLinear\): its zero point is uint8; expected int8"),
    (per_channel_activation, r"node 'q' .*3 scales for the activation 'planes'; expected one"),
    (int32_bias, r"node 'b' \(DequantizeLinear\): its input 'bias' is int32; expected int8; a bias stays in float"),
    (computed_scale, r"node 'q' .*its scale 'computed' is computed; expected a constant"),
    (without_zero_point, r"node 'w' .*it has no zero point; expected one of int8 zeros"),
    (wrong_axis, r"node 'w' .*4 scales along axis 1 of 'weight', whose shape is \[4, 3, 3, 3\]"),
    (fewer_zero_points, r"node 'w' .*it has 1 zero points and 4 scales"),
    (transpose_first, r"node 'cast' \(Transpose\): works on the uint8 tensor 'pixels'; expected a Cast"),
    (cast_to_int, r"node 'cast' \(Cast\): makes int32 of the uint8 tensor 'pixels'; expected float or float16"),
    (unknown_operator, r"node 'act' \(Hardmax\): TensorRT has no such operator"),
    (foreign_operator, r"uses operators of 'com\.microsoft'; expected ONNX's own"),
    (opset_18, r"has opset 18; expected 9 to 17"),
    (double, r"Tensor 'unused' is double; expected float"),
    (beyond_int32, r"Constant 'unused' holds 1099511627776; expected what fits into int32"),
    (dynamic_height, r"Tensor 'pixels' has an axis 1 of no fixed length"),
    (pooling_indices, r"node 'pool' \(MaxPool\): gives indices; expected the maxima only"),
    (axes_as_an_input, r"not valid ONNX: .*ReduceMean"),
    (computed_axes, r"node 'pool' \(ReduceSum\): its axes are computed; expected a constant"),
    (invalid, r"not valid ONNX: .*nobody"),
]


def test_file_that_tensorrt_takes_has_no_findings() -> None:
    onnx.checker.check_model(quantized_model(), full_check=True)
    assert lint_trt(quantized_model()) == []


@pytest.mark.parametrize(("change", "finding"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_file_that_it_rejects_has_a_finding(change: Change, finding: str) -> None:
    model = quantized_model()
    change(model)
    findings = "\n".join(lint_trt(model))
    assert re.search(finding, findings), findings


def test_data_outside_the_file_is_named(tmp_path: Path) -> None:
    model = quantized_model()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save_model(model, str(tmp_path / "model.onnx"))
    loaded = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False)
    assert any("is in another file; expected it inside" in finding for finding in lint_trt(loaded))


@settings(deadline=None, max_examples=40)
@given(st.integers(-128, 127).filter(bool))
def test_no_zero_point_but_zero(zero: int) -> None:
    model = quantized_model()
    set_constant(model, "in_zero", np.array(zero, np.int8))
    assert sum(f"zero point {zero};" in finding for finding in lint_trt(model)) == 2  # of Q and of DQ


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.floats(max_value=0, width=32), st.sampled_from([float("nan"), float("inf")])), st.integers(0, 3))
def test_no_scale_that_is_not_positive_and_finite(scale: float, channel: int) -> None:
    model = quantized_model()
    scales = np.full(4, 0.01, np.float32)
    scales[channel] = scale
    set_constant(model, "w_scale", scales)
    assert any("expected a positive, finite number" in finding for finding in lint_trt(model))


@settings(deadline=None, max_examples=40)
@given(st.floats(min_value=2**-20, max_value=2**20, width=32))
def test_any_positive_scale(scale: float) -> None:
    model = quantized_model()
    set_constant(model, "in_scale", np.array(scale, np.float32))
    assert lint_trt(model) == []
