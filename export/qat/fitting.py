"""Ranges to start from: training cannot repair one that cuts off nearly everything, since what is cut off has no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgewright.export.qat.engine import open_session
from edgewright.export.qat.graph import TrainableGraph
from edgewright.export.qat.reading import Activation

__all__ = ["fit_ranges"]

_SHARES = (1.0, 0.9, 0.8)
"""Of the whole range; cutting off the rare largest values leaves finer steps for all others."""

_WORSE = 2.0
"""Times the smallest squared error that a given range may cause. Calibration had its reasons for the rest."""

_OUTPUT = "_QuantizeLinear_Input"
"""What ONNX Runtime's quantizer adds to the name of the graph's output, since its dequantized form takes the name."""

_TOGETHER = 8
"""Pictures in one run, which holds every tensor of the network for all of them."""

_SAMPLED = 4_000
"""Values of each tensor that are looked at, of each run, besides the smallest and the largest."""


def fit_ranges(graph: TrainableGraph, float_model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> int:
    """Give activations whose range does not fit the float graph's values another scale and zero point, in place.

    Args:
        graph: To be trained.
        float_model: What it was made from; tensors have the same names there.
        pixels: uint8 (N, height, width, 3), training pictures, about a hundred.

    Returns:
        How many there were.
    """
    produced = {name for node in float_model.graph.node for name in node.output}
    named = [[name.removesuffix(_OUTPUT) for name in activation.tensors] for activation in graph.activations]
    wanted = {name for names in named for name in names if name in produced}
    symmetric = all(activation.zero_point == 0 and activation.codes[0] < 0 for activation in graph.activations)
    values = _values(float_model, sorted(wanted), pixels)
    changed = 0
    for activation, names in zip(graph.activations, named, strict=True):
        found = [values[name] for name in names if name in values]
        if found and _refit(activation, np.concatenate(found), symmetric):
            changed += 1
    return changed


def _values(
    model: onnx.ModelProto, names: list[str], pixels: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float32]]:
    """A sample of the values of each tensor."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    declared = {output.name for output in opened.graph.output}
    opened.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in declared
    )
    session = open_session(opened)
    source = session.get_inputs()[0].name
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    for start in range(0, len(pixels), _TOGETHER):
        results: list[npt.NDArray[Any]] = session.run(names, {source: pixels[start : start + _TOGETHER]})
        for name, result in zip(names, results, strict=True):
            flat = result.reshape(-1)
            parts[name] += [flat[:: 1 + flat.size // _SAMPLED], np.array([flat.min(), flat.max()])]
    return {name: np.concatenate(found) for name, found in parts.items()}


def _refit(activation: Activation, values: npt.NDArray[np.float32], symmetric: bool) -> bool:
    """Whether it was changed."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:
        return False
    if symmetric:
        high = max(high, -low)
        low = -high
    smallest, largest = activation.codes
    best: tuple[float, float, int] | None = None
    for share in _SHARES:
        scale = share * (high - low) / (largest - smallest)
        zero_point = 0 if symmetric else round(smallest - share * low / scale)
        error = _error(values, scale, zero_point, activation.codes)
        if best is None or error < best[0]:
            best = error, scale, zero_point
    assert best is not None
    given = _error(values, float(activation.log_scale.detach().exp()), activation.zero_point, activation.codes)
    if given <= _WORSE * best[0]:
        return False
    with torch.no_grad():
        activation.log_scale.fill_(float(np.log(best[1])))
    activation.zero_point = best[2]
    return True


def _error(values: npt.NDArray[np.float32], scale: float, zero_point: int, codes: tuple[int, int]) -> float:
    """Mean squared error of quantization."""
    low, high = (code - zero_point for code in codes)
    return float(np.square(np.clip(np.round(values / scale), low, high) * scale - values).mean())
