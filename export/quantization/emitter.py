"""Q/DQ nodes put into a float graph, by ONNX Runtime's quantizer, with ranges that were collected before."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgewright.export.quantization.pixels import Base, preface
from edgewright.export.quantization.profiles import Profile
from edgewright.export.quantization.ranges import Range
from edgewright.export.quiet import quiet_loggers
from edgewright.runtime.errors import UsageError

__all__ = ["emit", "layers"]

_TRT_OPS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Where TensorRT gains from Q/DQ: products, sums of two branches, pooling."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that a recipe may leave in float: those with weights, and the sums and products of branches."""
    skipped = {node.name for node in preface(model)}
    tensors = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.name not in skipped
        and (
            node.op_type in _WEIGHTED
            or (node.op_type in ("Add", "Mul") and not any(name in tensors for name in node.input))
            or node.op_type == "GlobalAveragePool"
        )
    ]


def emit(
    base: Base,
    profile: Profile,
    ranges: Mapping[str, Range],
    *,
    float_layers: Collection[str] = (),
    keep_activations: bool = False,
) -> onnx.ModelProto:
    """Quantize the float graph for an engine.

    Args:
        base: The float graph, as the profile takes its pixels.
        profile: The engine's.
        ranges: Of every activation, by name.
        float_layers: Names of nodes that stay in float.
        keep_activations: Keep Clip and Relu where the quantization after them clips just so.

    Raises:
        UsageError: the quantizer cannot handle an operator of this graph.
    """
    entrance = preface(base.model)
    kept = [node.name for node in entrance] + list(float_layers)
    pixel_tensor = entrance[-1].output[0] if base.grid is not None else None
    options: dict[str, Any] = {
        "ActivationSymmetric": profile.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": profile.quantize_bias,
        "AddQDQPairToWeight": profile.weight_pairs,
        "QDQKeepRemovableActivations": keep_activations,
    }
    op_types = sorted({*QDQRegistry, *QLinearOpsRegistry})
    if profile.inputs_only:
        op_types = list(_TRT_OPS)
        options["OpTypesToExcludeOutputQuantization"] = sorted({node.op_type for node in base.model.graph.node})
    usable = _clipped(base.model, {name: value for name, value in ranges.items() if name != pixel_tensor})
    if base.grid is not None and pixel_tensor is not None:
        grid = base.grid
        usable[pixel_tensor] = (-grid.zero_point * grid.scale, (255 - grid.zero_point) * grid.scale)
        options["TensorQuantOverrides"] = {
            pixel_tensor: [
                {
                    "quant_type": profile.activation,
                    "scale": np.array(grid.scale, np.float32),
                    "zero_point": _zero_point(profile, grid.zero_point),
                }
            ]
        }
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            quantizer = QDQQuantizer(
                _with_shapes(base.model),
                True,
                profile.reduce_range,
                QuantType.QInt8,
                profile.activation,
                _tensors_data(usable),
                [],
                kept,
                op_types,
                options,
            )
            quantizer.quantize_model()
        except (ValueError, RuntimeError) as error:  # what it raises for operators and types that it does not know
            raise UsageError(
                f"ONNX Runtime's quantizer cannot handle this graph: {error}. Ask for --precisions fp32,fp16 only, "
                "or choose another backbone."
            ) from error
        path = Path(folder) / "int8.onnx"
        quantizer.model.save_model_to_file(str(path), False)
        quantized = onnx.load(path, load_external_data=False)
    if pixel_tensor is not None and profile.activation is QuantType.QUInt8:
        _join_pixels(quantized, pixel_tensor)
    _float_logits(quantized)
    del quantized.metadata_props[:]
    quantized.producer_name = "edgewright"
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _clipped(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges in which a value that only a Clip or Relu reads has the range that comes out of it.

    Saturation then does the clipping. The quantizer does this by itself, but not in front of a layer left in float.
    """
    readers = Counter(name for node in model.graph.node for name in node.input)
    found = dict(ranges)
    for node in reversed(model.graph.node):
        if node.op_type in ("Clip", "Relu") and readers[node.input[0]] == 1 and node.output[0] in found:
            found[node.input[0]] = found[node.output[0]]
    return found


def _zero_point(profile: Profile, pixel: int) -> np.ndarray[Any, Any]:
    """The zero point of the profile's number format that stands for this pixel."""
    if profile.activation is QuantType.QUInt8:
        return np.array(pixel, np.uint8)
    return np.array(pixel - 128, np.int8)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the shapes of all values, marked as the quantizer expects it: it would go through a file otherwise."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    typed.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    return typed


def _tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in ranges.items()
        },
    )


def _join_pixels(model: onnx.ModelProto, tensor: str) -> None:
    """Take away the Q/DQ pair behind the pixels' own DequantizeLinear: it has the same scale and changes nothing."""
    readers = [node for node in model.graph.node if tensor in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return
    quantize = readers[0]
    dequantize = next(node for node in model.graph.node if quantize.output[0] in node.input)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == dequantize.output[0]:
                node.input[position] = tensor
    _remove(model, quantize, dequantize)


def _float_logits(model: onnx.ModelProto) -> None:
    """Take away the Q/DQ pair behind the last layer: no engine needs it, and it rounds the logits to 256 values."""
    output = model.graph.output[0].name
    makers = {name: node for node in model.graph.node for name in node.output}
    dequantize = makers[output]
    quantize = makers.get(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return
    last = makers[quantize.input[0]]
    last.output[list(last.output).index(quantize.input[0])] = output
    _remove(model, quantize, dequantize)


def _remove(model: onnx.ModelProto, quantize: onnx.NodeProto, dequantize: onnx.NodeProto) -> None:
    names = {*quantize.input[1:], *dequantize.input[1:]}
    model.graph.node.remove(quantize)
    model.graph.node.remove(dequantize)
    used = {name for node in model.graph.node for name in node.input}
    kept = [found for found in model.graph.initializer if found.name not in names or found.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints to stdout, and logs advice to preprocess that does not apply to our folded graphs."""
    with quiet_loggers(""), contextlib.redirect_stdout(io.StringIO()):
        yield
