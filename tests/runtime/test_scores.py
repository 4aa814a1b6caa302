"""Logits to scores: a distribution, in the order of the logits, whatever their size."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgewright.runtime.scores import energy, softmax, top_scores

Logits = npt.NDArray[np.float32]

# Far beyond what a network gives, and on both sides of the hundred classes at which the algorithm changes.
ROW = arrays(np.float32, st.integers(1, 130), elements=st.floats(-(2.0**100), 2.0**100, width=32))
BATCH = arrays(np.float32, (3, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32))
SMALL_BATCH = arrays(np.float32, (3, 7), elements=st.floats(-50, 50, width=32))
properties = settings(max_examples=60, deadline=None)


@given(BATCH)
@properties
def test_softmax_sums_to_one(logits: Logits) -> None:
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1, rtol=1e-5)


@given(BATCH)
@properties
def test_softmax_is_between_nought_and_one(logits: Logits) -> None:
    scores = softmax(logits)
    # Written so that NaN fails.
    assert ((scores >= 0) & (scores <= 1)).all()


@given(BATCH)
@properties
def test_softmax_keeps_the_order(logits: Logits) -> None:
    ranked = np.take_along_axis(softmax(logits), np.argsort(logits, axis=-1), axis=-1)
    assert (np.diff(ranked, axis=-1) >= 0).all()


@given(SMALL_BATCH, st.floats(-1000, 1000, width=16))
@properties
def test_softmax_ignores_what_all_logits_have_in_common(logits: Logits, offset: float) -> None:
    np.testing.assert_allclose(softmax(logits + np.float32(offset)), softmax(logits), atol=1e-3)


def test_softmax_of_known_logits() -> None:
    logits = np.log(np.array([1, 2, 5], dtype=np.float32))
    np.testing.assert_allclose(softmax(logits), [0.125, 0.25, 0.625], rtol=1e-6)


def test_softmax_leaves_its_argument_alone() -> None:
    logits = np.array([1, 2, 3], dtype=np.float32)
    softmax(logits)
    assert logits.tolist() == [1, 2, 3]


@given(ROW)
@properties
def test_top_scores_are_those_of_softmax(logits: Logits) -> None:
    expected = softmax(logits)
    found = top_scores(logits, len(logits))
    np.testing.assert_allclose([score for _, score in found], expected[[index for index, _ in found]], atol=1e-5)


@given(ROW, st.integers(1, 140))
@properties
def test_top_scores_follow_the_logits_and_then_the_index(logits: Logits, count: int) -> None:
    expected = sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:count]
    assert [index for index, _ in top_scores(logits, count)] == expected


@pytest.mark.parametrize("classes", [10, 1000])
def test_scores_too_small_to_tell_apart_are_still_in_order(classes: int) -> None:
    logits = np.full(classes, -1000, dtype=np.float32)
    logits[[4, 2, 7]] = [0, -500, -400]
    assert [index for index, _ in top_scores(logits, 4)] == [4, 7, 2, 0]


@pytest.mark.parametrize("classes", [10, 1000])
def test_top_scores_are_plain_numbers(classes: int) -> None:
    index, score = top_scores(np.zeros(classes, dtype=np.float32), 1)[0]
    assert (type(index), type(score)) == (int, float)


def test_energy_is_the_logarithm_of_the_sum_and_does_not_overflow() -> None:
    def of(logits: Logits) -> float:
        ((index, score),) = top_scores(logits, 1)
        return energy(float(logits[index]), score)

    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert of(logits) == pytest.approx(math.log(math.exp(1) + math.exp(2) + math.exp(3)))
    assert of(logits + 5000) == pytest.approx(of(logits) + 5000, abs=1e-3)
    assert of(np.zeros(1000, np.float32)) == pytest.approx(math.log(1000))
