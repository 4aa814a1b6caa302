"""Percentiles that can be believed: when there are enough samples for one, and within which limits it lies.

Requests that follow each other are no independent samples. A machine that is a little slower for a second is so for every
request of that second, and an interval that counts each of them is too narrow by far. So samples come in bursts that are
spread over the whole run, and what counts is how much the bursts differ (the method of batch means: Law, "Simulation
Modeling and Analysis", section 9.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgewright.benchmarks.reports import Interval

__all__ = ["PERCENTS", "fewest_samples", "interval_of", "percentile", "quantiles", "settled"]

PERCENTS = (50, 90, 95, 99)

_CONFIDENCE = 0.95
_BELIEVED = 0.99
_NORMAL = 1.959964
"""Of the normal distribution, for 95 %."""
_FEWEST_BURSTS = 4


def fewest_samples(percent: int) -> int:
    """How many samples it takes to believe a percentile: 64 for the 90th, 662 for the 99th.

    As MLPerf's early stopping has it (`mlperf_inference_policies`, "Early stopping"): so many that with one sample beyond
    it the percentile is met with confidence 0.99. A median needs no more than a few.
    """
    if percent <= 50:
        return 10
    above = 1 - percent / 100
    count = 2
    while (1 - above) ** count + count * above * (1 - above) ** (count - 1) > 1 - _BELIEVED:
        count += 1
    return count


def percentile(samples: npt.NDArray[np.float64], percent: int) -> float | None:
    """The percentile (nearest rank, so always a value that was measured), or None if there are too few samples."""
    if len(samples) < fewest_samples(percent):
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf"))


def quantiles(bursts: Sequence[npt.NDArray[np.float64]]) -> tuple[dict[int, float | None], dict[str, Interval]]:
    """Each of :data:`PERCENTS`, and the intervals ("p50", …) of those that there are.

    Args:
        bursts: Milliseconds, in the order of measuring.
    """
    samples = np.concatenate(bursts)
    values = {percent: percentile(samples, percent) for percent in PERCENTS}
    intervals = {
        f"p{percent}": interval_of(bursts, percent, value) for percent, value in values.items() if value is not None
    }
    return values, intervals


def interval_of(bursts: Sequence[npt.NDArray[np.float64]], percent: int, value: float) -> Interval:
    """The 95 % confidence interval of a percentile, by order statistics.

    Ranks are those between which the percentile of as many independent samples would lie; how many these samples are worth
    follows from the shares of each burst that lie below `value`.

    Args:
        bursts: Milliseconds, in the order of measuring.
        percent: 1 to 99.
        value: What was found.
    """
    samples = np.sort(np.concatenate(bursts))
    low, high = _ranks(_worth(bursts, percent / 100, value), percent / 100)
    count = len(samples)
    return Interval(
        float(samples[max(0, math.floor(low * count))]), float(samples[min(count - 1, math.ceil(high * count))])
    )


def _worth(bursts: Sequence[npt.NDArray[np.float64]], share: float, value: float) -> int:
    """How many independent samples tell as much of the percentile; at most as many as there are."""
    sizes = np.array([len(burst) for burst in bursts])
    if len(bursts) < _FEWEST_BURSTS:
        return int(sizes.sum())
    below = np.array([np.count_nonzero(burst <= value) for burst in bursts])
    # The variance of a ratio of sums: bursts may be of different sizes.
    residuals = below - share * sizes
    freedom = len(bursts) - 1
    variance = len(bursts) / freedom * float(np.sum((residuals - residuals.mean()) ** 2)) / float(sizes.sum()) ** 2
    if variance <= 0:
        return int(sizes.sum())
    # Of few bursts the variance itself is uncertain: Student's distribution in the place of the normal one.
    student = 1 + (_NORMAL**2 + 1) / (4 * freedom) + (5 * _NORMAL**4 + 16 * _NORMAL**2 + 3) / (96 * freedom**2)
    worth = share * (1 - share) / (variance * student**2)
    return max(2, min(int(sizes.sum()), int(worth)))


def _ranks(count: int, share: float) -> tuple[float, float]:
    """Ranks, as shares of `count` independent samples, between which a percentile lies: exact, of the binomial distribution."""
    ranks = np.arange(count + 1)
    # log n! for n = 0 … count.
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    logs = factorials[count] - factorials - factorials[::-1] + ranks * math.log(share)
    logs = logs + (count - ranks) * math.log1p(-share)
    cumulative = np.cumsum(np.exp(logs))
    tail = (1 - _CONFIDENCE) / 2
    low = int(np.searchsorted(cumulative, tail))
    high = int(np.searchsorted(cumulative, 1 - tail))
    return low / count, min(count, high + 1) / count


def settled(samples: Sequence[float], window: int, tolerance: float) -> bool:
    """Whether the medians of the last two windows differ by less than `tolerance`, a share."""
    if len(samples) < 2 * window:
        return False
    before, now = np.median(samples[-2 * window : -window]), np.median(samples[-window:])
    return bool(abs(now - before) <= tolerance * before)
