"""What every activation of the float graph ranges over, collected once; four ways to draw the range from it.

The four are the usual ones: the extremes; a percentile, so that outliers do not stretch the range; the range that
keeps most information (relative entropy: Migacz, "8-bit Inference with TensorRT", GTC 2017); and the one with the least
mean squared error of rounding and clipping (Banner et al., "Post training 4-bit quantization", NeurIPS 2019, do so in
closed form, here it is searched).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.simulate import open_session
from edgewright.runtime.console import track
from edgewright.runtime.errors import DataError

__all__ = ["METHODS", "Histogram", "Method", "Range", "collect_histograms", "draw_ranges"]

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

Range = tuple[float, float]

_BINS = 2048
_BATCH = 8

_SAMPLES = 32_768
"""Values of a tensor that one picture adds to the histogram, evenly spaced; the extremes are those of all values."""

_PERCENTILE = 99.99
_LEVELS = 256
_CANDIDATES = 100


@dataclass
class Histogram:
    """How often the values of a tensor fall into each of `_BINS` equal bins of [-reach, reach].

    `reach` is a power of two and doubles when a larger value comes, by joining neighbours: nothing is lost but
    resolution, and no second pass over the pictures is needed.
    """

    counts: npt.NDArray[np.float64]
    reach: float
    lowest: float
    highest: float

    @classmethod
    def empty(cls) -> Histogram:
        """Of no values yet."""
        return cls(np.zeros(_BINS), 2.0**-10, np.inf, -np.inf)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count values of one batch, any shape."""
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        while max(-low, high) >= self.reach:
            joined = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([np.zeros(_BINS // 4), joined, np.zeros(_BINS // 4)])
            self.reach *= 2
        # An odd stride, since channels lie a power of two apart.
        some = flat[:: max(1, flat.size // (_SAMPLES * len(values))) | 1]
        self.counts += np.bincount(((some + self.reach) * (_BINS / (2 * self.reach))).astype(np.int64), minlength=_BINS)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The value in the middle of each bin."""
        width = 2 * self.reach / _BINS
        return np.asarray(width * (np.arange(_BINS) + 0.5) - self.reach, dtype=np.float64)


def collect_histograms(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> dict[str, Histogram]:
    """Run the float graph over calibration pixels (N, height, width, 3) and count the values of every activation.

    Raises:
        DataError: an activation is not finite.
    """
    names = _activations(model)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {output.name for output in probe.graph.output}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in outputs
    )
    session = open_session(probe.SerializeToString())
    found = {name: Histogram.empty() for name in names}
    starts = range(0, len(pixels), _BATCH)
    for start in track(starts, "collecting ranges", len(starts)):
        results = session.run(names, {INPUT_NAME: pixels[start : start + _BATCH]})
        for name, values in zip(names, results, strict=True):
            if not np.isfinite(values).all():
                raise DataError(
                    f"The activation '{name}' is not finite on calibration pictures {start} to {start + len(values)}. "
                    "The trained model is broken; train it again."
                )
            found[name].add(values)
    return found


def _activations(model: onnx.ModelProto) -> list[str]:
    """Names of all float tensors that nodes compute."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*typed.graph.value_info, *typed.graph.output)
    computed = {name for node in model.graph.node for name in node.output}
    return [
        value.name
        for value in values
        if value.name in computed and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]


def draw_ranges(histograms: Mapping[str, Histogram], method: Method, *, symmetric: bool) -> dict[str, Range]:
    """The range (lowest, highest) of every tensor that is kept; what lies outside is clipped.

    Args:
        histograms: By tensor.
        method: How to draw the range.
        symmetric: Whether the range must be symmetric about zero.
    """
    draw = {"minmax": _minmax, "percentile": _percentile, "entropy": _entropy, "mse": _mse}[method]
    return {name: draw(histogram, symmetric) for name, histogram in histograms.items()}


def _minmax(histogram: Histogram, symmetric: bool) -> Range:
    # Zero is always in the range: padding must be exact.
    low, high = min(0.0, histogram.lowest), max(0.0, histogram.highest)
    if symmetric:
        reach = max(-low, high)
        return -reach, reach
    return low, high


def _percentile(histogram: Histogram, symmetric: bool) -> Range:
    low, high = _minmax(histogram, symmetric)
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    outside = (100 - _PERCENTILE) / 100
    edge = 2 * histogram.reach / _BINS
    left = -histogram.reach + edge * int(np.searchsorted(share, outside / 2))
    right = -histogram.reach + edge * (1 + int(np.searchsorted(share, 1 - outside / 2)))
    if symmetric:
        reach = min(high, max(-left, right))
        return -reach, reach
    return max(low, min(0.0, left)), min(high, max(0.0, right))


def _shrunk(low: float, high: float) -> Sequence[Range]:
    """The full range and ever smaller parts of it, down to a tenth."""
    return [(low * share, high * share) for share in np.linspace(1.0, 0.1, _CANDIDATES)]


def _mse(histogram: Histogram, symmetric: bool) -> Range:
    values, counts = histogram.centres, histogram.counts

    def error(candidate: Range) -> float:
        return float((counts * (values - _rounded(values, *candidate)) ** 2).sum())

    return min(_shrunk(*_minmax(histogram, symmetric)), key=error)


def _entropy(histogram: Histogram, symmetric: bool) -> Range:
    values, counts = histogram.centres, histogram.counts
    total = counts.sum()

    def divergence(candidate: Range) -> float:
        low, high = candidate
        inside = (values >= low) & (values <= high)
        # What is clipped piles up at the ends of the range.
        kept = counts[inside].copy()
        if not kept.size:
            return np.inf
        kept[0] += counts[values < low].sum()
        kept[-1] += counts[values > high].sum()
        # The levels spread what they hold evenly over the bins that had something in them.
        levels = np.round(_position(values[inside], low, high)).astype(np.int64)
        occupied = counts[inside] > 0
        held = np.bincount(levels, weights=counts[inside], minlength=_LEVELS)
        shared = np.bincount(levels, weights=occupied, minlength=_LEVELS)
        spread = np.where(occupied, held[levels] / np.maximum(shared[levels], 1), 0.0)
        return _relative_entropy(kept / total, spread / max(spread.sum(), 1.0))

    return min(_shrunk(*_minmax(histogram, symmetric)), key=divergence)


def _relative_entropy(truth: npt.NDArray[np.float64], model: npt.NDArray[np.float64]) -> float:
    """D(truth || model) in nats; a bin that only the truth has counts as if the model had a little there."""
    some = truth > 0
    return float((truth[some] * np.log(truth[some] / np.maximum(model[some], 1e-9))).sum())


def _position(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Where values lie on the scale of levels, 0 to `_LEVELS` - 1."""
    return np.clip((values - low) * ((_LEVELS - 1) / max(high - low, 1e-30)), 0, _LEVELS - 1)


def _rounded(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Values after quantization to `_LEVELS` levels between `low` and `high`, and back."""
    return low + np.round(_position(values, low, high)) * ((high - low) / (_LEVELS - 1))
