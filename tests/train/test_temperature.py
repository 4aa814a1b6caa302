"""Temperature scaling, against independent computations and data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgewright.runtime.errors import DataError
from edgewright.train.evaluation import SplitResult
from edgewright.train.temperature import (
    LARGEST,
    SMALLEST,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    fold_temperature,
    negative_log_likelihood,
    reliability_bins,
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def drawn(count: int, too_sure: float = 1.0, classes: int = 4, seed: int = 0) -> tuple[Floats, Ints]:
    """Logits whose softmax is the true distribution of the labels, then multiplied by `too_sure`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in scores], dtype=np.int64)
    return (logits * too_sure).astype(np.float32), labels


@pytest.mark.parametrize("too_sure", [0.25, 1.0, 3.0])
def test_how_much_too_sure_a_network_is_comes_back_as_its_temperature(too_sure: float) -> None:
    assert fit_temperature(*drawn(4000, too_sure)) == pytest.approx(too_sure, rel=0.06)


def test_temperature_is_the_one_that_torch_finds() -> None:
    logits, labels = drawn(300, 2.0)
    inverse = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(torch.from_numpy(logits).double() * inverse, torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert fit_temperature(logits, labels) == pytest.approx(1 / inverse.item(), rel=1e-5)


def test_separable_data_claims_no_more_than_the_rule_of_succession() -> None:
    labels = np.arange(30) % 3
    logits = np.eye(3, dtype=np.float32)[labels] * np.linspace(1, 4, 30, dtype=np.float32)[:, None]
    temperature = fit_temperature(logits, labels)
    scores = np.exp(logits / temperature) / np.exp(logits / temperature).sum(axis=1, keepdims=True)
    assert scores.max(axis=1).mean() == pytest.approx(31 / 32, abs=1e-5)


def test_network_that_is_always_wrong_is_as_unsure_as_possible() -> None:
    labels = np.array([0, 1, 0])
    assert fit_temperature(np.eye(2, dtype=np.float32)[1 - labels], labels) == pytest.approx(LARGEST)


def test_logits_that_hardly_differ_stay_above_the_smallest_temperature() -> None:
    labels = np.arange(100) % 2
    assert fit_temperature(1e-4 * np.eye(2, dtype=np.float32)[labels], labels) == pytest.approx(SMALLEST)


def test_one_picture_gives_a_usable_temperature() -> None:
    assert SMALLEST <= fit_temperature(np.array([[3.0, -1.0]], dtype=np.float32), np.array([0])) <= LARGEST


def test_one_class_needs_no_temperature() -> None:
    assert fit_temperature(np.array([[3.0], [1.0]], dtype=np.float32), np.array([0, 0])) == 1.0


def test_huge_logits_do_not_overflow() -> None:
    logits, labels = drawn(500, 1e4)
    assert fit_temperature(logits, labels) == pytest.approx(LARGEST)
    assert math.isfinite(negative_log_likelihood(logits, labels))


def test_diverged_network_is_refused() -> None:
    with pytest.raises(DataError, match="diverged"):
        fit_temperature(np.array([[np.nan, 1.0]], dtype=np.float32), np.array([0]))


def test_no_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="no pictures"):
        fit_temperature(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64))


def test_likelihood_is_torchs_cross_entropy() -> None:
    logits, labels = drawn(50)
    expected = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_the_definition(bins: int) -> None:
    logits, labels = drawn(400, 3.0)
    scores = torch.from_numpy(logits).double().softmax(1).numpy()
    total = 0.0
    for lower in range(bins):
        members = [number for number, row in enumerate(scores) if lower / bins < max(row) <= (lower + 1) / bins]
        if members:
            confidence = sum(max(scores[number]) for number in members) / len(members)
            accuracy = sum(int(np.argmax(scores[number])) == labels[number] for number in members) / len(members)
            total += len(members) / len(scores) * abs(confidence - accuracy)
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(total, abs=1e-9)


def test_bins_hold_every_picture_even_one_with_a_score_of_exactly_one() -> None:
    logits, labels = drawn(60)
    logits[0] = [1000, 0, 0, 0]
    assert reliability_bins(logits, labels).count.sum() == 60


def test_folding_divides_the_logits() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    pictures = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    before = model(pictures)
    fold_temperature(model, 2.5)
    assert torch.allclose(model(pictures), before / 2.5, atol=1e-6)


def test_folding_works_without_a_bias() -> None:
    model = nn.Sequential(nn.Linear(5, 3, bias=False))
    before = model(torch.ones(1, 5))
    fold_temperature(model, 0.5)
    assert torch.allclose(model(torch.ones(1, 5)), before / 0.5)


def test_calibrating_is_measured_on_the_split_it_was_not_fitted_on() -> None:
    val, test = SplitResult(*drawn(600, 4.0)), SplitResult(*drawn(600, 4.0, seed=1))
    calibration, results = calibrate(nn.Sequential(nn.Linear(2, 4)), {"val": val, "test": test})
    assert calibration.split == "test"
    assert calibration.ece_before == expected_calibration_error(test.logits, test.labels)
    assert calibration.ece_after < calibration.ece_before / 3
    assert calibration.nll_after < calibration.nll_before
    assert np.array_equal(results["test"].predicted, test.predicted)
    assert np.allclose(results["val"].logits * calibration.temperature, val.logits, rtol=1e-5)


def test_without_a_test_split_it_says_that_it_was_measured_on_validation() -> None:
    calibration, _ = calibrate(nn.Sequential(nn.Linear(2, 4)), {"val": SplitResult(*drawn(50))})
    assert calibration.split == "val"
