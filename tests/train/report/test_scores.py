"""Figures of the report against figures worked out by hand or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from edgewright.train.evaluation import SplitResult
from edgewright.train.report.scores import class_scores, most_confused, percent, wilson


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_newcombes(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_nothing_measured_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def random_result() -> SplitResult:
    rng = np.random.default_rng(0)
    return SplitResult(rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 4, 60))


def test_precision_recall_and_f1_are_scikit_learns() -> None:
    result, classes = random_result(), ("a", "b", "c", "d")
    precision, recall, f1, count = precision_recall_fscore_support(result.labels, result.predicted)
    for score in class_scores(result.confusion(), classes, dict.fromkeys(classes, 5)):
        assert score.precision == pytest.approx(precision[score.index])
        assert score.recall == pytest.approx(recall[score.index])
        assert score.f1 == pytest.approx(f1[score.index])
        assert score.count == count[score.index]


def test_weakest_class_is_first_and_one_without_pictures_last() -> None:
    confusion = np.array([[9, 1, 0], [6, 4, 0], [0, 0, 0]])
    scores = class_scores(confusion, ("good", "weak", "absent"), {"good": 3, "weak": 2, "absent": 1})
    assert [score.name for score in scores] == ["weak", "good", "absent"]
    assert (scores[2].precision, scores[2].recall, scores[2].f1) == (None, None, None)


def test_commonest_mistakes_leave_out_what_is_right_and_what_never_happened() -> None:
    confusion = np.array([[90, 1, 0], [5, 80, 0], [0, 0, 70]])
    found = most_confused(confusion, ("a", "b", "c"), 10)
    assert [(pair.true, pair.said, pair.count) for pair in found] == [("b", "a", 5), ("a", "b", 1)]


def test_unknown_share_is_a_dash() -> None:
    assert (percent(None), percent(0.8656)) == ("–", "86.6 %")
