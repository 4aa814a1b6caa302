"""FP16 in the graph: valid, of one float type, close to what it came from, and loud about what FP16 cannot hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgewright.export.fp16 import beyond_fp16, to_fp16
from edgewright.export.onnx_graph import INPUT_NAME, OUTPUT_NAME, to_onnx
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.network import Network

BACKBONES = ("mobilenet_v2", "mobilenet_v3_small", "resnet18")
SIZE = 48
Logits = np.ndarray[Any, np.dtype[np.float32]]


def small_model(weight: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """uint8 `pixels` [batch, 4] times a weight [4, 2]."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "weight"], [OUTPUT_NAME]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", 4])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module", params=BACKBONES)
def pair(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A float model with random weights that lets signals through, and its FP16 form."""
    torch.manual_seed(0)
    backbone = build_backbone(request.param, classes=7)
    for module in backbone.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            # As initialised, activations fade away from layer to layer, and any error with them.
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    model = to_onnx(Network(backbone, Preprocess(resize=SIZE, crop=SIZE)).eval(), SIZE)
    return model, to_fp16(model)


def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)


def run_onnx(model: onnx.ModelProto) -> Logits:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: Logits = session.run([OUTPUT_NAME], {INPUT_NAME: pixels()})[0]
    return logits


@pytest.mark.slow
def test_only_the_ends_are_not_fp16(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    _, half = pair
    assert {tensor.data_type for tensor in half.graph.initializer} <= {TensorProto.FLOAT16, TensorProto.INT64}
    assert [value.type.tensor_type.elem_type for value in half.graph.input] == [TensorProto.UINT8]
    assert [value.type.tensor_type.elem_type for value in half.graph.output] == [TensorProto.FLOAT]
    casts = [(node.attribute[0].i, list(node.output)) for node in half.graph.node if node.op_type == "Cast"]
    assert [kind for kind, _ in casts] == [TensorProto.FLOAT16, TensorProto.FLOAT]
    assert casts[-1][1] == [OUTPUT_NAME]


@pytest.mark.slow
def test_every_tensor_between_them_is_inferred_as_fp16(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    inferred = onnx.shape_inference.infer_shapes(pair[1], check_type=True, strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    outputs = {name for node in inferred.graph.node for name in node.output} - {OUTPUT_NAME}
    assert outputs <= set(kinds)
    assert {kinds[name] for name in outputs} <= {TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64}


@pytest.mark.slow
def test_half_the_bytes(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, half = pair
    assert half.ByteSize() < 0.55 * model.ByteSize()


@pytest.mark.slow
def test_onnx_runtime_gives_what_the_float_model_gives(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    expected, found = (run_onnx(model) for model in pair)
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.slow
def test_openvino_gives_what_the_float_model_gives(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, half = pair
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model=half.SerializeToString()), "CPU", settings)
    expected, found = run_onnx(model), compiled({INPUT_NAME: pixels()})[0]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.slow
def test_the_model_it_came_from_is_left_alone(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, _ = pair
    before = model.SerializeToString()
    to_fp16(model)
    assert model.SerializeToString() == before


def test_weights_that_fit_are_rounded_to_nearest_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 2))
    half = to_fp16(small_model(weight))
    (tensor,) = half.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), weight.astype(np.float32).astype(np.float16))
    assert capsys.readouterr() == ("", "")


def test_weights_beyond_the_range_are_named_and_clamped(capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.ones((4, 2))
    weight[1, 0], weight[2, 1] = 1e6, -7e4
    half = to_fp16(small_model(weight))
    assert "2 of 8 values of 'weight' are clamped to 65504; the largest is 1e+06" in capsys.readouterr().err
    (tensor,) = half.graph.initializer
    clamped = numpy_helper.to_array(tensor)
    assert (clamped[1, 0], clamped[2, 1]) == (65504, -65504)


def test_tensor_too_small_for_fp16_is_named() -> None:
    assert "all values of 'weight' are raised to 6e-08" in beyond_fp16(small_model(np.full((4, 2), 1e-9)))[0]


def test_small_values_beside_larger_ones_are_nothing_to_tell() -> None:
    assert beyond_fp16(small_model(np.array([[1e-9, 1], [0, 2], [1, 1], [1, 1]]))) == []


def test_infinity_stays_infinity() -> None:
    model = small_model(np.array([[np.inf, 1], [0, 2], [1, 1], [1, 1]]))
    assert beyond_fp16(model) == []
    assert numpy_helper.to_array(to_fp16(model).graph.initializer[0])[0, 0] == np.inf
