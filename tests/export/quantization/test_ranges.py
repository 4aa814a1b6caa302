"""Histograms of activations, and the ranges drawn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewright.export.quantization.ranges import METHODS, Histogram, Method, collect_histograms, draw_ranges

if TYPE_CHECKING:
    from tests.export.quantization.conftest import Digits

FLOATS = st.floats(-1e6, 1e6, width=32)


def histogram_of(values: npt.NDArray[np.float32], parts: int = 4) -> Histogram:
    found = Histogram.empty()
    for part in np.array_split(values, parts):
        found.add(part[:, None])
    return found


def rounding_error(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    step = (high - low) / 255
    return float(((values - np.clip(low + np.round((values - low) / step) * step, low, high)) ** 2).mean())


@settings(max_examples=60, deadline=None)
@given(values=hnp.arrays(np.float32, st.integers(4, 200), elements=FLOATS), symmetric=st.booleans())
def test_extremes_are_those_of_all_values_and_zero(values: npt.NDArray[np.float32], symmetric: bool) -> None:
    low, high = draw_ranges({"x": histogram_of(values)}, "minmax", symmetric=symmetric)["x"]
    assert low <= min(0.0, values.min())
    assert high >= max(0.0, values.max())
    assert (
        (low, high) == (-high, -low) if symmetric else (low, high) == (min(0.0, values.min()), max(0.0, values.max()))
    )


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(np.float32, st.integers(4, 200), elements=FLOATS),
    method=st.sampled_from(METHODS),
    symmetric=st.booleans(),
)
def test_no_method_leaves_the_extremes_or_zero(
    values: npt.NDArray[np.float32], method: Method, symmetric: bool
) -> None:
    found = {"x": histogram_of(values)}
    low, high = draw_ranges(found, method, symmetric=symmetric)["x"]
    lowest, highest = draw_ranges(found, "minmax", symmetric=symmetric)["x"]
    assert lowest <= low <= 0 <= high <= highest


def test_no_value_is_lost_when_the_reach_grows() -> None:
    values = np.concatenate([np.full(100, 0.001), np.full(100, 3.0), np.full(100, -700.0)]).astype(np.float32)
    found = histogram_of(values, parts=3)
    assert found.counts.sum() == 300
    assert found.counts[found.centres > 1].sum() == 100
    assert found.counts[found.centres < -600].sum() == 100


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_outlier_does_not_stretch_the_range(method: Method) -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[7] = 100.0
    _, high = draw_ranges({"x": histogram_of(values)}, method, symmetric=True)["x"]
    assert 2 < high < 20


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_rounds_better_than_extremes_where_tails_are_long(symmetric: bool) -> None:
    values = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    found = {"x": histogram_of(values)}
    best = draw_ranges(found, "mse", symmetric=symmetric)["x"]
    assert rounding_error(values, *best) < 0.9 * rounding_error(
        values, *draw_ranges(found, "minmax", symmetric=symmetric)["x"]
    )


def test_every_activation_is_collected_and_none_exceeds_its_extremes(digits: Digits) -> None:
    found = collect_histograms(digits.model, digits.known[:20])
    assert set(found) >= {name for node in digits.model.graph.node if node.op_type == "Conv" for name in node.output}
    assert "logits" in found
    assert all(np.isfinite([h.lowest, h.highest]).all() and h.counts.sum() > 0 for h in found.values())
    relus = [node.output[0] for node in digits.model.graph.node if node.op_type == "Relu"]
    assert relus
    assert all(found[name].lowest >= 0 for name in relus)
