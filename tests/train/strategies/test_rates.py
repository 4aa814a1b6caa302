"""Learning rates that fit a network's weights."""

from __future__ import annotations

import pytest
import torch

from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.weights import load_pretrained
from edgewright.train.strategies.rates import restraint

RATE = 4e-4


def weight(*shape: int, size: float) -> torch.Tensor:
    """Random values whose root mean square is `size`."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return values * (size / values.square().mean().sqrt())


def test_network_of_many_inputs_and_small_weights_is_held_back() -> None:
    """ResNet-18's convolutions: a step of the full rate would turn most of them into others."""
    layers = [weight(8, inputs, 3, 3, size=size) for inputs, size in ((64, 0.05), (256, 0.02), (512, 0.01))]
    factor = restraint(layers, RATE)
    assert 0.1 < factor < 0.5
    assert restraint(layers, RATE / 2) == pytest.approx(2 * factor)


def test_mobilenets_learn_at_the_full_rate() -> None:
    model = load_pretrained("mobilenet_v3_small", "builtin").model
    assert restraint((values for values in model.parameters() if values.ndim > 1), RATE) == 1.0


def test_layers_without_size_say_nothing() -> None:
    assert restraint([torch.zeros(4, 4)], RATE) == 1.0
    dense = weight(8, 512, 3, 3, size=0.01)
    assert restraint([torch.zeros(4, 4), dense, torch.zeros(9, 9)], RATE) == restraint([dense], RATE)
    assert restraint([], RATE) == 1.0


def test_what_counts_is_the_rate_beside_the_weights() -> None:
    torch.manual_seed(0)
    layers = [values for values in build_backbone("resnet18").parameters() if values.ndim > 1]
    assert restraint(layers, RATE) == pytest.approx(restraint([10 * values for values in layers], 10 * RATE))
