"""Scores that mean something: one temperature, fitted on validation and folded into the head.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: dividing all logits by one number
leaves every answer as it is and makes the softmax say 80 % about pictures of which 80 % are named right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from edgewright.runtime.errors import DataError
from edgewright.train.backbones.surgery import head_of
from edgewright.train.evaluation import SplitResult

__all__ = [
    "LARGEST",
    "SMALLEST",
    "Calibration",
    "ReliabilityBins",
    "calibrate",
    "expected_calibration_error",
    "fit_temperature",
    "fold_temperature",
    "negative_log_likelihood",
    "reliability_bins",
]

SMALLEST, LARGEST = 0.05, 20.0
"""Bounds of a temperature. Beyond them scores are all 100 % or all alike, whatever a split seems to ask for."""

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


class Calibration(BaseModel):
    """What the temperature did; part of `run.json`.

    Attributes:
        temperature: The logits of the trained network were divided by it.
        split: Where the figures below were measured: `test`, or, without one, the `val` that it was fitted on.
        ece_before: Expected calibration error (0..1, 15 bins) of the scores as trained.
        ece_after: The same of the scores as written.
        nll_before: Mean negative log likelihood (nats) as trained.
        nll_after: The same as written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    split: str


@dataclass(frozen=True)
class ReliabilityBins:
    """Pictures sorted into equally wide bins by the score of the answer; each array has shape (bins).

    Attributes:
        count: Pictures in the bin.
        score: Their mean score, 0..1; NaN in an empty bin.
        accuracy: The share of them that was named right; NaN in an empty bin.
    """

    count: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def calibrate(network: nn.Module, results: Mapping[str, SplitResult]) -> tuple[Calibration, dict[str, SplitResult]]:
    """Fit a temperature on `results["val"]` and fold it into `network`, in place.

    Returns:
        What it did, measured on the test split where there is one, and the results with the new logits.
    """
    temperature = fit_temperature(results["val"].logits, results["val"].labels)
    fold_temperature(network, temperature)
    scaled = {
        split: SplitResult((result.logits / temperature).astype(np.float32), result.labels)
        for split, result in results.items()
    }
    split = "test" if "test" in results else "val"
    before, after = results[split], scaled[split]
    calibration = Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(before.logits, before.labels),
        ece_after=expected_calibration_error(after.logits, after.labels),
        nll_before=negative_log_likelihood(before.logits, before.labels),
        nll_after=negative_log_likelihood(after.logits, after.labels),
        split=split,
    )
    return calibration, scaled


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the smallest negative log likelihood, within `SMALLEST` and `LARGEST`.

    Where every picture is named right, the likelihood only grows as the temperature falls, and would have the network
    claim certainty. Then Laplace's rule of succession decides: after N right answers of N, the next one is right with
    probability (N + 1) / (N + 2), and that becomes the mean score.

    Args:
        logits: (N, classes).
        labels: (N).

    Raises:
        DataError: no pictures, or logits that are not numbers.
    """
    if len(logits) == 0:
        raise DataError(
            "Scores cannot be calibrated: validation has no pictures. Add some, or leave it to be split off."
        )
    if not np.isfinite(logits).all():
        raise DataError(
            "Scores cannot be calibrated: the network answers with infinite or undefined logits, so the training "
            "diverged. Train again with a smaller --lr."
        )
    if logits.shape[1] == 1:
        return 1.0
    values = np.asarray(logits, dtype=np.float64)
    true = values[np.arange(len(values)), labels]
    if (values.argmax(axis=1) == labels).all():
        aim = (len(labels) + 1) / (len(labels) + 2)
        return _crossing(lambda temperature: float(_softmax(values / temperature).max(axis=1).mean()) - aim)

    def slope(temperature: float) -> float:
        # d NLL / d (1 / T): the expected logit less the true one. It rises with 1 / T, because NLL is convex in it.
        return float(((_softmax(values / temperature) * values).sum(axis=1) - true).mean())

    return _crossing(slope)


def _crossing(falling: Callable[[float], float]) -> float:
    """Where a function that falls with the temperature is zero, by bisection; a bound where it is not zero at all."""
    low, high = np.log(SMALLEST), np.log(LARGEST)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.clip(np.exp((low + high) / 2), SMALLEST, LARGEST))


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def fold_temperature(model: nn.Module, temperature: float) -> None:
    """Divide the head's weight and bias by `temperature`, in place: the softmax changes, the order of classes does not.

    Raises:
        UsageError: the model has no linear head.
    """
    _, head = head_of(model)
    with torch.no_grad():
        head.weight.div_(temperature)
        if head.bias is not None:
            head.bias.div_(temperature)


def negative_log_likelihood(logits: Logits, labels: Labels) -> float:
    """Mean over the pictures of -log(score of the true class), in nats; logits (N, classes), labels (N)."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(len(values)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return float(-likelihood.mean())


def reliability_bins(logits: Logits, labels: Labels, bins: int = 15) -> ReliabilityBins:
    """Score and accuracy per bin; bin m holds scores in (m / bins, (m + 1) / bins], as Guo et al. have it."""
    scores = _softmax(np.asarray(logits, dtype=np.float64))
    best = scores.max(axis=1)
    right = scores.argmax(axis=1) == labels
    place = np.clip(np.ceil(best * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return ReliabilityBins(
        count,
        np.bincount(place, weights=best, minlength=bins) / filled,
        np.bincount(place, weights=right, minlength=bins) / filled,
    )


def expected_calibration_error(logits: Logits, labels: Labels, bins: int = 15) -> float:
    """Mean over the pictures of how far score and accuracy of their bin are apart, 0..1.

    Args:
        logits: (N, classes).
        labels: (N).
        bins: Of equal width.
    """
    found = reliability_bins(logits, labels, bins)
    gap = np.abs(found.accuracy - found.score)
    return float(np.nansum(gap * found.count) / len(labels))
