"""When a percentile may be believed, and how far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.benchmarks.statistics import fewest_samples, interval_of, percentile, quantiles, settled


def test_fewest_samples_are_those_of_mlperf() -> None:
    assert [fewest_samples(percent) for percent in (90, 95, 99)] == [64, 130, 662]


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_percentile_of_too_few_samples_is_not_told(percent: int) -> None:
    enough = fewest_samples(percent)
    assert percentile(np.arange(enough - 1.0), percent) is None
    assert percentile(np.arange(float(enough)), percent) is not None


def test_percentile_is_a_value_that_was_measured() -> None:
    samples = np.array([1.0] * 99 + [1000.0] * 1 + [1.0] * 900)
    assert percentile(samples, 50) == 1.0
    assert percentile(np.concatenate([samples, [1000.0] * 20]), 99) == 1000.0


LISTS = st.lists(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40), min_size=1, max_size=15)


@settings(deadline=None)
@given(LISTS)
def test_interval_holds_the_figure_and_lies_in_the_data(lists: list[list[float]]) -> None:
    bursts = [np.array(each) for each in lists]
    values, intervals = quantiles(bursts)
    everything = np.concatenate(bursts)
    assert {f"p{percent}" for percent, value in values.items() if value is not None} == set(intervals)
    for percent, value in values.items():
        if value is not None:
            found = intervals[f"p{percent}"]
            assert everything.min() <= found.low_ms <= value <= found.high_ms <= everything.max()


@pytest.mark.parametrize("drift", [0.0, 0.02, 0.1])
def test_interval_holds_the_true_median_in_95_of_100_runs(drift: float) -> None:
    """Also where whole bursts are slow or fast together; an interval that took each sample for independent would hold it in
    20 of 100."""
    random = np.random.default_rng(7)
    held = naive = 0
    for _ in range(400):
        levels = np.exp(drift * random.standard_normal(12))
        bursts = [8 * level * np.exp(0.05 * random.standard_normal(60)) for level in levels]
        found = interval_of(bursts, 50, float(np.median(np.concatenate(bursts))))
        held += found.low_ms <= 8 <= found.high_ms
        one = interval_of([np.concatenate(bursts)], 50, float(np.median(np.concatenate(bursts))))
        naive += one.low_ms <= 8 <= one.high_ms
    assert held / 400 > 0.92
    assert drift == 0 or naive / 400 < 0.6


def test_more_samples_narrow_the_interval() -> None:
    random = np.random.default_rng(3)
    widths = []
    for size in (20, 200, 2000):
        bursts = [8 + random.standard_normal(size) for _ in range(12)]
        found = interval_of(bursts, 50, float(np.median(np.concatenate(bursts))))
        widths.append(found.high_ms - found.low_ms)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_settled_compares_the_last_two_windows() -> None:
    falling = [30.0, 20.0, 15.0, 12.0, 11.0, 10.5, 10.2, 10.1]
    assert not settled(falling[:4], 2, 0.03)
    assert settled(falling, 2, 0.06)
    assert not settled(falling[:3], 2, 10.0)
