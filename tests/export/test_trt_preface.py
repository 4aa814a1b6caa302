"""Pixels are cast before they are transposed, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgewright.export.trt_preface import cast_first


def image_model(transposes: int = 1, second_reader: bool = False) -> onnx.ModelProto:
    """uint8 `pixels` [batch, 4, 4, 4], transposed so often, as floats times two."""
    nodes, source = [], "pixels"
    for number in range(transposes):
        nodes.append(helper.make_node("Transpose", [source], [f"turned{number}"], f"turn{number}", perm=[0, 3, 1, 2]))
        source = f"turned{number}"
    nodes.append(helper.make_node("Cast", [source], ["float"], "cast", to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Add", ["float", "float"], ["logits"], "twice"))
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 4, 4])]
    if second_reader:
        nodes.append(helper.make_node("Identity", [source], ["copy"], "copy"))
        outputs.append(helper.make_tensor_value_info("copy", TensorProto.UINT8, ["batch", 4, 4, 4]))
    graph = helper.make_graph(
        nodes, "image", [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 4])], outputs
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 4), dtype=np.uint8)
    results: list[np.ndarray[Any, Any]] = ort.InferenceSession(model.SerializeToString()).run(None, {"pixels": pixels})
    return results


@pytest.mark.parametrize("transposes", [1, 2, 3])
def test_cast_comes_first_and_the_result_is_the_same(transposes: int) -> None:
    model = image_model(transposes)
    moved = cast_first(model)
    assert [node.op_type for node in moved.graph.node] == ["Cast", *["Transpose"] * transposes, "Add"]
    assert moved.graph.node[0].input[0] == "pixels"
    np.testing.assert_array_equal(run(moved)[0], run(model)[0])


def test_model_that_casts_first_stays_as_it_is() -> None:
    model = image_model(0)
    assert cast_first(model) == model


def test_bytes_that_something_else_reads_stay_bytes() -> None:
    model = image_model(1, second_reader=True)
    assert cast_first(model) == model


def test_the_model_it_came_from_is_left_alone() -> None:
    model = image_model()
    before = model.SerializeToString()
    cast_first(model)
    assert model.SerializeToString() == before
