"""The head is the solution of multinomial logistic regression; scikit-learn is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from edgewright.train import head
from edgewright.train.head import PENALTIES, Features, HeadFit, fit_head

CLASSES = 3
FEATURES = 8
Split = tuple[torch.Tensor, torch.Tensor]


def clusters(count: int, spread: float, seed: int) -> Split:
    """`count` points around one centre per class; far apart at spread 0.3, overlapping at 3."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0)) * 2
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return centres[labels] + spread * torch.randn(count, FEATURES, generator=generator), labels


def fit(train: Split, val: Split, classes: int, class_weights: torch.Tensor | None = None) -> HeadFit:
    train_features, val_features = (Features(split[0].__getitem__, split[1]) for split in (train, val))
    return fit_head(train_features, val_features, classes, class_weights)


def logits(fitted: HeadFit, features: torch.Tensor) -> torch.Tensor:
    return features @ fitted.weight.T + fitted.bias


def top1(fitted: HeadFit, split: Split) -> float:
    return (logits(fitted, split[0]).argmax(1) == split[1]).float().mean().item()


@pytest.fixture(scope="module")
def overlapping() -> HeadFit:
    """A head for classes that no head can tell apart without mistakes."""
    return fit(clusters(60, 3, 1), clusters(90, 3, 2), CLASSES)


def validation_top1(fitted: HeadFit) -> float:
    return next(val_top1 for penalty, _, val_top1, _ in fitted.tried if penalty == fitted.penalty)


def test_separable_classes_are_separated() -> None:
    fitted = fit(clusters(90, 0.3, 1), clusters(30, 0.3, 2), CLASSES)
    assert top1(fitted, clusters(300, 0.3, 3)) == 1.0


def test_head_has_a_row_per_class_and_a_column_per_feature(overlapping: HeadFit) -> None:
    assert (tuple(overlapping.weight.shape), tuple(overlapping.bias.shape)) == ((CLASSES, FEATURES), (CLASSES,))


def test_same_features_give_the_same_head(overlapping: HeadFit) -> None:
    again = fit(clusters(60, 3, 1), clusters(90, 3, 2), CLASSES)
    assert torch.equal(overlapping.weight, again.weight)


def test_every_penalty_is_tried_strongest_first(overlapping: HeadFit) -> None:
    assert tuple(penalty for penalty, *_ in overlapping.tried) == PENALTIES == tuple(sorted(PENALTIES, reverse=True))


def test_weaker_penalty_fits_the_training_split_better(overlapping: HeadFit) -> None:
    losses = [loss for *_, loss in overlapping.tried]
    assert losses == sorted(losses, reverse=True)


def test_penalty_that_validates_best_is_chosen(overlapping: HeadFit) -> None:
    assert validation_top1(overlapping) == max(val_top1 for _, _, val_top1, _ in overlapping.tried)


def test_recorded_accuracy_is_that_of_the_returned_head(overlapping: HeadFit) -> None:
    assert top1(overlapping, clusters(90, 3, 2)) == pytest.approx(validation_top1(overlapping))


def test_folded_head_on_raw_features_is_scikit_learns_on_standardised_ones() -> None:
    features, labels = clusters(150, 3, 1)
    raw = features * torch.linspace(8, 12, FEATURES) + torch.linspace(-30, 30, FEATURES)
    fitted = fit((raw, labels), (raw, labels), CLASSES)
    standardised = ((raw - raw.mean(0)) / raw.std(0)).numpy()
    # Ours: mean loss + penalty / 2 |w|^2. Theirs: C * summed loss + 1 / 2 |w|^2.
    oracle = LogisticRegression(C=1 / (len(labels) * fitted.penalty), tol=1e-8, max_iter=1000)
    expected = oracle.fit(standardised, labels.numpy()).predict_proba(standardised)
    assert np.abs(logits(fitted, raw).softmax(1).numpy() - expected).max() < 2e-3


def test_unit_of_the_features_does_not_matter() -> None:
    (features, labels), val = clusters(90, 3, 1), clusters(60, 3, 2)
    scale, shift = 20.0, torch.linspace(-30, 30, FEATURES)
    plain = fit((features, labels), val, CLASSES)
    scaled = fit((features * scale + shift, labels), (val[0] * scale + shift, val[1]), CLASSES)
    expected = logits(plain, val[0]).softmax(1)
    assert torch.allclose(logits(scaled, val[0] * scale + shift).softmax(1), expected, atol=2e-3)


def test_quiet_channel_is_not_magnified() -> None:
    # INT8 rounds all channels in the same steps; a weight a hundred times the others' would magnify that.
    (features, labels), val = clusters(90, 3, 1), clusters(60, 3, 2)
    scale = torch.ones(FEATURES)
    scale[0] = 0.01
    fitted = fit((features * scale, labels), (val[0] * scale, val[1]), CLASSES)
    assert fitted.weight[:, 0].abs().max() < 3 * fitted.weight[:, 1:].abs().max()


def with_channel(split: Split, channel: torch.Tensor) -> Split:
    return torch.cat((split[0], channel.expand(len(split[0])).reshape(-1, 1)), dim=1), split[1]


def test_constant_channel_gets_no_weight() -> None:
    constant = torch.tensor(5.0)
    train, val = with_channel(clusters(90, 0.3, 1), constant), with_channel(clusters(30, 0.3, 2), constant)
    fitted = fit(train, val, CLASSES)
    assert fitted.weight[:, -1].abs().max() == 0
    assert top1(fitted, val) == 1.0


def test_channel_of_rounding_noise_gets_no_weight() -> None:
    noise = 1e-7 * torch.randn(90, generator=torch.Generator().manual_seed(4))
    fitted = fit(with_channel(clusters(90, 3, 1), noise), with_channel(clusters(30, 3, 2), noise[:30]), CLASSES)
    assert fitted.weight[:, -1].abs().max() == 0


def test_rounding_noise_beside_many_dead_channels_gets_no_weight() -> None:
    noise = 1e-7 * torch.randn(90, generator=torch.Generator().manual_seed(4))
    train, val = clusters(90, 3, 1), clusters(30, 3, 2)
    for _ in range(2 * FEATURES):
        train, val = with_channel(train, torch.tensor(0.0)), with_channel(val, torch.tensor(0.0))
    fitted = fit(with_channel(train, noise), with_channel(val, noise[:30]), CLASSES)
    assert fitted.weight[:, -1].abs().max() == 0


def test_features_that_say_nothing_give_the_classes_shares() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    fitted = fit((torch.ones(4, 5), labels), (torch.ones(4, 5), labels), 2)
    assert torch.allclose(logits(fitted, torch.ones(1, 5)).softmax(1), torch.tensor([[0.75, 0.25]]), atol=1e-3)


def test_class_without_samples_is_never_predicted() -> None:
    train = clusters(90, 0.3, 1)
    fitted = fit(train, clusters(30, 0.3, 2), CLASSES + 1)
    assert logits(fitted, train[0]).argmax(1).max() < CLASSES


def test_features_in_chunks_give_the_same_head(monkeypatch: pytest.MonkeyPatch, overlapping: HeadFit) -> None:
    monkeypatch.setattr(head, "_IN_MEMORY", 7)
    monkeypatch.setattr(head, "_CHUNK", 7)
    chunked = fit(clusters(60, 3, 1), clusters(90, 3, 2), CLASSES)
    assert chunked.penalty == overlapping.penalty
    assert torch.allclose(chunked.weight, overlapping.weight, atol=2e-3)
    assert torch.allclose(chunked.bias, overlapping.bias, atol=2e-3)


def test_no_more_than_a_chunk_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_IN_MEMORY", 16)
    monkeypatch.setattr(head, "_CHUNK", 16)
    values, labels = clusters(60, 3, 1)
    asked = []

    def read(rows: slice) -> torch.Tensor:
        asked.append(rows)
        return values[rows]

    fit_head(Features(read, labels), Features(read, labels), CLASSES)
    assert {(rows.start, rows.stop) for rows in asked} == {(0, 16), (16, 32), (32, 48), (48, 60)}


def test_few_features_are_read_once() -> None:
    values, labels = clusters(60, 3, 1)
    asked = []

    def read(rows: slice) -> torch.Tensor:
        asked.append(rows)
        return values[rows]

    fit_head(Features(read, labels), Features(values.__getitem__, labels), CLASSES)
    assert asked == [slice(0, 60)]


def test_class_weights_are_scikit_learns() -> None:
    features, labels = clusters(150, 3, 1)
    weights = torch.tensor([4.0, 1.0, 0.25])
    fitted = fit((features, labels), (features, labels), CLASSES, weights)
    standardised = ((features - features.mean(0)) / features.std(0)).numpy()
    # Ours divides by the sum of the samples' weights, theirs sums.
    total = float(weights[labels].sum())
    oracle = LogisticRegression(
        C=1 / (total * fitted.penalty), tol=1e-8, max_iter=1000, class_weight=dict(enumerate(weights.tolist()))
    )
    expected = oracle.fit(standardised, labels.numpy()).predict_proba(standardised)
    assert np.abs(logits(fitted, features).softmax(1).numpy() - expected).max() < 2e-3


def test_rare_class_that_weighs_more_is_named_more_often() -> None:
    values, labels = clusters(300, 6, 1)
    few = torch.cat([torch.nonzero(labels != 2).flatten(), torch.nonzero(labels == 2).flatten()[:10]])
    train, val = (values[few], labels[few]), clusters(300, 6, 2)
    weights = len(few) / (CLASSES * torch.bincount(train[1]).float())
    plain, balanced = fit(train, val, CLASSES), fit(train, val, CLASSES, weights)
    named = [int((logits(one, val[0]).argmax(1) == 2).sum()) for one in (plain, balanced)]
    assert named[1] > named[0] + 20
