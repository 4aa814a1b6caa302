"""FP16 in the graph itself: for TensorRT from 11 on, which takes types from the ONNX file alone, and for whoever else asks.

Everything that computes is FP16, the preface that normalises pixels included: pixels are exact in it, and against a
preface in FP32 the logits of MobileNetV2, MobileNetV3-small and ResNet-18 did not come closer to the trained model's.
The input stays uint8; the logits are cast back to FP32 at the very end. No operator sees two floating-point types, as a
strongly typed TensorRT network demands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgewright.export.quiet import quiet_loggers
from edgewright.runtime.console import warn

__all__ = ["beyond_fp16", "to_fp16"]

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (float32 inside) with FP16 weights and arithmetic; inputs and outputs keep their types.

    Weights beyond FP16's range are clamped to it, with a warning that names them: whether the model survives that, the
    parity gate decides.
    """
    for finding in beyond_fp16(model):
        warn(f"FP16: {finding}")
    with quiet_loggers("onnxruntime.transformers.float16"):
        half: onnx.ModelProto = convert_float_to_float16(copy.deepcopy(model), keep_io_types=True)
    half.producer_name = model.producer_name
    onnx.checker.check_model(half, full_check=True)
    return half


def beyond_fp16(model: onnx.ModelProto) -> list[str]:
    """What FP16 cannot hold of the model's constants, a sentence for each tensor.

    Too large (beyond 65504) is clamped. Too small (below 6e-8) is told only where it is a tensor's whole content: beside
    larger values it is noise.
    """
    findings = []
    for name, values in _constants(model):
        sizes = np.abs(values[np.isfinite(values)])
        if too_large := int((sizes > _LARGEST).sum()):
            findings.append(
                f"{too_large} of {values.size} values of '{name}' are clamped to {_LARGEST:.0f}; the largest is {sizes.max():.6g}."
            )
        elif sizes.size and 0 < sizes.max() < _SMALLEST:
            findings.append(
                f"all values of '{name}' are raised to {_SMALLEST:.1g}, FP16's smallest; they are at most {sizes.max():.6g}."
            )
    return findings


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Float32 initializers, and values of Constant nodes, by name."""
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        tensors += [(node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value"]
    for name, tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            yield name, numpy_helper.to_array(tensor)
