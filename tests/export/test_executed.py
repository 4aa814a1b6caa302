"""What the engines say they execute, asked of real quantized graphs."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from edgewright.export.executed import (
    ExecutedLayer,
    executed_by_onnxruntime,
    executed_by_openvino,
    float_layers,
    prevailing,
)
from edgewright.export.fp16 import to_fp16
from edgewright.export.onnx_graph import to_onnx
from edgewright.export.openvino_ir import quantize_ir, serialize_ir, to_ir
from edgewright.export.quantization.pixels import preface
from edgewright.export.quantization.profiles import ORT_X86
from edgewright.export.quantization.workshop import Workshop
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.network import Network

pytestmark = pytest.mark.slow

SPEC = Preprocess(resize=32, crop=32)
LABELS = [f"class {number}" for number in range(7)]


def exported(backbone: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    return to_onnx(Network(build_backbone(backbone, classes=len(LABELS)), SPEC).eval(), SPEC.crop)


@pytest.fixture(scope="module")
def resnet() -> onnx.ModelProto:
    """Convolutions, sums, pooling, a matrix product."""
    return exported("resnet18")


@pytest.fixture(scope="module")
def mobilenet() -> onnx.ModelProto:
    """Depthwise convolutions, hard-swish and squeeze-excitation beside them."""
    return exported("mobilenet_v3_small")


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    """To calibrate on."""
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def quantized(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], *float_layers: str) -> onnx.ModelProto:
    """For ONNX Runtime on x86."""
    return Workshop(model, SPEC, pixels).quantize(ORT_X86, "minmax", float_layers)


def names(model: onnx.ModelProto, *kinds: str) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type in kinds]


def precisions(layers: list[ExecutedLayer], *kinds: str) -> Counter[str]:
    return Counter(layer.precision for layer in layers if layer.op in kinds)


def ir(model: onnx.ModelProto) -> Any:
    return to_ir(model.SerializeToString(), LABELS, SPEC)


def test_float_model_is_float_throughout_in_onnx_runtime(resnet: onnx.ModelProto) -> None:
    layers = executed_by_onnxruntime(resnet.SerializeToString())
    convolutions = [layer for layer in layers if layer.op == "Conv"]
    # Whatever ONNX Runtime fuses and renames, the layers have the file's names.
    assert sorted(layer.name for layer in convolutions) == sorted(names(resnet, "Conv"))
    assert {layer.precision for layer in convolutions} == {"fp32"}
    assert set(names(resnet, "Conv", "Gemm")) <= set(float_layers(layers))


def test_quantized_model_leaves_at_most_its_preface_in_float_in_onnx_runtime(
    resnet: onnx.ModelProto, pixels: npt.NDArray[np.uint8]
) -> None:
    layers = executed_by_onnxruntime(quantized(resnet, pixels).SerializeToString())
    assert set(float_layers(layers)) <= {node.name for node in preface(resnet)}
    assert precisions(layers, "QLinearConv") == {"int8": len(names(resnet, "Conv"))}
    assert set(names(resnet, "Conv", "Gemm")) <= {layer.name for layer in layers}


def test_layers_left_in_float_are_named(resnet: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> None:
    stem = names(resnet, "Conv")[:3]
    layers = executed_by_onnxruntime(quantized(resnet, pixels, *stem).SerializeToString())
    convolutions = [name for name in float_layers(layers) if name in names(resnet, "Conv")]
    assert convolutions == stem


def test_activations_that_the_engine_takes_apart_are_called_after_their_layer(
    mobilenet: onnx.ModelProto, pixels: npt.NDArray[np.uint8]
) -> None:
    layers = executed_by_onnxruntime(quantized(mobilenet, pixels).SerializeToString())
    found = float_layers(layers)
    first = names(mobilenet, "Conv")[0]
    assert {f"HardSigmoid after {first}", f"Mul after {first}"} <= set(found)
    assert not set(names(mobilenet, "Conv", "Gemm")) & set(found)


def test_onnx_runtime_executes_fp16_in_fp32_on_this_cpu_and_it_shows(resnet: onnx.ModelProto) -> None:
    layers = executed_by_onnxruntime(to_fp16(resnet).SerializeToString())
    # True of x86; where ONNX Runtime has FP16 kernels (some ARM), the same function tells of them.
    assert set(precisions(layers, "Conv", "Gemm")) <= {"fp32", "fp16"}
    assert len([layer for layer in layers if layer.op == "Conv"]) == len(names(resnet, "Conv"))
    if platform.machine() in ("x86_64", "AMD64"):
        assert prevailing(layers) == "fp32"


def test_precision_that_prevails_is_that_of_the_heavy_layers() -> None:
    kinds = {"QLinearConv": "int8", "FusedConv": "int8", "QGemm": "int8", "Conv": "fp32", "Relu": "fp32", "Mul": "fp32"}
    assert prevailing(ExecutedLayer(op.lower(), op, precision) for op, precision in kinds.items()) == "int8"


def test_float_model_is_float_throughout_in_openvino(resnet: onnx.ModelProto) -> None:
    layers = executed_by_openvino(*serialize_ir(ir(resnet)), "f32")
    convolutions = [layer for layer in layers if layer.op == "Convolution"]
    assert {layer.precision for layer in convolutions} == {"fp32"}
    assert {layer.name.split("+")[0] for layer in convolutions} == set(names(resnet, "Conv"))
    assert {layer.name for layer in convolutions} <= set(float_layers(layers))


def test_quantized_ir_is_executed_in_int8_by_openvino(resnet: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> None:
    layers = executed_by_openvino(*serialize_ir(quantize_ir(ir(resnet), pixels, lambda picture: picture)), "f32")
    assert precisions(layers, "Convolution") == {"int8": len(names(resnet, "Conv"))}
    assert precisions(layers, "FullyConnected", "MatMul") == {"int8": 1}
    assert not set(float_layers(layers)) & set(names(resnet, "Conv", "Gemm"))


def test_openvino_s_float_layers_are_named_as_in_the_file(
    mobilenet: onnx.ModelProto, pixels: npt.NDArray[np.uint8]
) -> None:
    stem = names(mobilenet, "Conv")[:3]
    layers = executed_by_openvino(*serialize_ir(ir(quantized(mobilenet, pixels, *stem))), "f32")
    found = {part for name in float_layers(layers) for part in name.split("+")}
    assert set(stem) <= found
    assert not set(names(mobilenet, "Conv")[3:]) & found
    assert set(names(mobilenet, "HardSigmoid")) <= found
    # What belongs to a Q/DQ pair is no layer.
    assert not any("Linear" in name or "fq_" in name for name in found)


def test_conversions_are_no_layers() -> None:
    kinds = ("Conv", "QuantizeLinear", "Reorder", "Relu", "Reshape", "SomethingNew")
    layers = [ExecutedLayer(kind.lower(), kind, "fp32") for kind in kinds]
    assert float_layers(layers) == ["conv", "relu", "somethingnew"]
    assert float_layers([ExecutedLayer("conv", "Conv", "int8"), ExecutedLayer("conv", "Conv", "bf16")]) == ["conv"]
