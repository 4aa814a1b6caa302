"""INT8 for ONNX Runtime on x86, by its own quantizer."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgewright.export.calibration import CalibrationSet
from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.quiet import quiet_loggers

__all__ = ["STEM_LAYERS", "quantize_ort_x86"]

STEM_LAYERS = 3
"""MobileNet's first convolution and first block."""

_BATCH = 16


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, calibration: CalibrationSet) -> None:
        pixels = calibration.pixels
        self._batches: Iterator[Any] = iter([pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def quantize_ort_x86(model: onnx.ModelProto, calibration: CalibrationSet, *, float_stem: bool) -> onnx.ModelProto:
    """Static QDQ quantization: u8 asymmetric activations per tensor, s8 weights per channel, int32 bias.

    Weights use 7 of their 8 bits (`reduce_range`): on a CPU without VNNI the sum of two products of full range
    overflows 16 bits and saturates, which ruins accuracy on just those devices and shows on no other.

    The preface that normalises pixels stays in float: quantized along with the rest it costs more than it saves. With
    `float_stem` the first `STEM_LAYERS` convolutions stay in float as well: they see few channels of very different
    range, so that they cost accuracy most, and they are too small to gain speed.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            copy.deepcopy(model),  # it moves the weights of what it is given to a file
            str(path),
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_preface(model) + (_stem(model) if float_stem else []),
        )
        quantized = onnx.load(path, load_external_data=False)
    del quantized.metadata_props[:]
    quantized.producer_name = "edgewright"
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _preface(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between the input and the first convolution or matrix product."""
    names = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            break
        names.append(node.name)
    return names


def _stem(model: onnx.ModelProto) -> list[str]:
    """Names of the first convolutions."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"][:STEM_LAYERS]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints to stdout, and logs advice to preprocess that does not apply to our folded graphs."""
    with quiet_loggers(""), contextlib.redirect_stdout(io.StringIO()):
        yield
