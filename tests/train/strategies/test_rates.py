"""Learning rates of single layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgewright.train.strategies.rates import restraint

RATE = 4e-4


def weight(*shape: int, size: float) -> nn.Parameter:
    """Random values whose root mean square is `size`."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return nn.Parameter(values * (size / values.square().mean().sqrt()))


def test_layer_with_many_inputs_and_small_weights_is_held_back() -> None:
    """ResNet-18's last convolutions: a step of the full rate would turn them into others."""
    factor = restraint(weight(64, 512, 3, 3, size=0.004), RATE)
    turn = math.sqrt(512 * 9) * RATE * factor / 0.004
    assert 0.02 < turn <= 0.2


@pytest.mark.parametrize(
    ("shape", "size"), [((32, 1, 3, 3), 0.3), ((16, 96, 1, 1), 0.08), ((32, 3, 3, 3), 0.1), ((64,), 1e-6)]
)
def test_layers_of_mobilenets_and_biases_learn_at_the_full_rate(shape: tuple[int, ...], size: float) -> None:
    assert restraint(weight(*shape, size=size), RATE) == 1.0


def test_factor_is_a_power_of_two_and_falls_with_the_rate() -> None:
    layer = weight(64, 256, 3, 3, size=0.02)
    factors = [restraint(layer, rate) for rate in (1e-5, 1e-4, 1e-3, 1e-2)]
    assert factors == sorted(factors, reverse=True)
    assert all(math.log2(factor).is_integer() for factor in factors)
    # One that starts at zero has no size to be held to.
    assert restraint(nn.Parameter(torch.zeros(4, 4)), RATE) == 1.0
