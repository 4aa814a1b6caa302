"""The student's second head is pulled to what the teacher says, and the backbone with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.distill import TEMPERATURE, TaughtHead
from edgewright.train.features import ActivationCache

TAUGHT_CLASSES = 5
SAMPLES = 6
VIEWS = 2


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 3))
    return Network(backbone, Preprocess(resize=8, crop=8))


@pytest.fixture
def taught(network: Network, tmp_path: Path) -> Iterator[TaughtHead]:
    """A head whose teacher says something different about every sample and view."""
    cache = ActivationCache((TAUGHT_CLASSES,), SAMPLES, VIEWS, np.float16, tmp_path / "cache")
    cache.values[:] = np.random.default_rng(0).normal(0, 3, cache.values.shape)
    head = TaughtHead(cache, network)
    yield head
    head.close()


def pixels(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)


def says(head: TaughtHead, logits: torch.Tensor) -> None:
    """Make the second head say `logits` about every picture."""
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(logits)


def teacher_says(head: TaughtHead, row: int, sample: int) -> torch.Tensor:
    return torch.from_numpy(head._cache.values[row, sample].astype(np.float32))


@pytest.mark.parametrize(("row", "sample"), [(0, 0), (1, 4)])
def test_loss_is_zero_where_the_student_says_what_the_teacher_says(
    network: Network, taught: TaughtHead, row: int, sample: int
) -> None:
    # Adding the same number to every logit says the same.
    says(taught, teacher_says(taught, row, sample) + 7)
    network(pixels(2))
    assert taught.loss(row, torch.tensor([sample, sample])).item() == pytest.approx(0, abs=1e-5)
    assert taught.loss(1 - row, torch.tensor([sample, sample])).item() > 0.1
    assert taught.loss(row, torch.tensor([sample - 1, sample - 1])).item() > 0.1


def test_loss_is_the_divergence_of_softened_scores(network: Network, taught: TaughtHead) -> None:
    samples = torch.tensor([5, 0, 3])
    network(pixels(3))
    assert taught._features is not None
    with torch.no_grad():
        ours = torch.softmax(taught.linear(taught._features).double() / TEMPERATURE, dim=1)
    theirs = torch.stack([torch.softmax(teacher_says(taught, 1, int(one)).double() / 2, dim=0) for one in samples])
    expected = TEMPERATURE**2 * (theirs * (theirs / ours).log()).sum(dim=1).mean()
    assert taught.loss(1, samples).item() == pytest.approx(expected.item(), rel=1e-4)


def test_gradient_reaches_the_backbone_and_the_second_head_alone(network: Network, taught: TaughtHead) -> None:
    network(pixels(3))
    torch.autograd.backward(taught.loss(0, torch.arange(3)))
    trained = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    assert trained == {"backbone.0.weight", "backbone.0.bias"}
    assert all(value.grad is not None and value.grad.any() for value in taught.linear.parameters())


def test_learning_lowers_the_loss(network: Network, taught: TaughtHead) -> None:
    optimiser = torch.optim.SGD([*network.parameters(), *taught.parameters()], lr=0.1)
    losses = []
    for _ in range(60):
        network(pixels(3))
        loss = taught.loss(0, torch.arange(3))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_student_is_not_changed_by_its_second_head(network: Network, taught: TaughtHead) -> None:
    assert not [name for name in network.state_dict() if "linear" in name]
    assert network(pixels(2)).shape == (2, 3)
