"""Ranges to start from: training cannot repair one that cuts off nearly everything, since what is cut off has no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgewright.export.qat.graph import TrainableGraph
from edgewright.export.qat.reading import Activation
from edgewright.export.quantization.ranges import Histogram, collect_histograms

__all__ = ["fit_ranges"]

_SHARES = (1.0, 0.9, 0.8)
"""Of the whole range; cutting off the rare largest values leaves finer steps for all others."""

_WORSE = 2.0
"""Times the smallest squared error that a given range may cause. Calibration had its reasons for the rest."""

_OUTPUT = "_QuantizeLinear_Input"
"""What ONNX Runtime's quantizer adds to the name of the graph's output, since its dequantized form takes the name."""


def fit_ranges(graph: TrainableGraph, float_model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> int:
    """Give activations whose range does not fit the float graph's values another scale and zero point, in place.

    Args:
        graph: To be trained.
        float_model: What it was made from; tensors have the same names there.
        pixels: uint8 (N, height, width, 3), training pictures, about a hundred.

    Returns:
        How many there were.
    """
    histograms = collect_histograms(float_model, pixels)
    symmetric = all(activation.zero_point == 0 and activation.codes[0] < 0 for activation in graph.activations)
    changed = 0
    for activation in graph.activations:
        names = (name.removesuffix(_OUTPUT) for name in activation.tensors)
        found = [histograms[name] for name in names if name in histograms]
        if found and _refit(activation, found, symmetric):
            changed += 1
    return changed


def _refit(activation: Activation, found: Sequence[Histogram], symmetric: bool) -> bool:
    """Whether it was changed."""
    low = min(0.0, *(histogram.lowest for histogram in found))
    high = max(0.0, *(histogram.highest for histogram in found))
    if low == high:
        return False
    if symmetric:
        high = max(high, -low)
        low = -high
    smallest, largest = activation.codes
    fits = []
    for share in _SHARES:
        scale = share * (high - low) / (largest - smallest)
        zero_point = 0 if symmetric else round(smallest - share * low / scale)
        fits.append((_error(found, scale, zero_point, activation.codes), scale, zero_point))
    error, scale, zero_point = min(fits)
    given = _error(found, float(activation.log_scale.detach().exp()), activation.zero_point, activation.codes)
    if given <= _WORSE * error:
        return False
    with torch.no_grad():
        activation.log_scale.fill_(math.log(scale))
    activation.zero_point = zero_point
    return True


def _error(found: Sequence[Histogram], scale: float, zero_point: int, codes: tuple[int, int]) -> float:
    """Squared error of quantization, over all values."""
    low, high = (code - zero_point for code in codes)
    return sum(
        float(
            histogram.counts
            @ (np.clip(np.round(histogram.centres / scale), low, high) * scale - histogram.centres) ** 2
        )
        for histogram in found
    )
