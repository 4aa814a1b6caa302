"""The average is the one of its formula, and is in place only where it is asked to be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgewright.train.average import WeightAverage


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]


def set_to(members: list[nn.Parameter], value: float) -> None:
    with torch.no_grad():
        for parameter in members:
            parameter.fill_(value)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_average_is_the_recursive_one(decay: float) -> None:
    members = parameters()
    average, expected = WeightAverage(members, decay), 0.0
    for update in range(1, 40):
        set_to(members, float(update))
        average.update()
        memory = min(decay, (1 + update) / (10 + update))
        expected = memory * expected + (1 - memory) * update
    with average.in_place():
        for parameter in members:
            assert torch.allclose(parameter, torch.full_like(parameter, expected), rtol=1e-5)


def test_untrained_weights_are_soon_forgotten() -> None:
    members = parameters()
    set_to(members, 1000.0)
    average = WeightAverage(members, 0.999)
    set_to(members, 1.0)
    for _ in range(50):
        average.update()
    with average.in_place():
        # With a fixed decay of 0.999 it would still be 950.
        assert members[0][0].item() < 2


def test_outside_the_parameters_are_the_last_steps() -> None:
    members = parameters()
    average = WeightAverage(members, 0.9)
    set_to(members, 5.0)
    average.update()
    with average.in_place():
        assert members[0][0].item() < 5
    assert torch.equal(members[0].detach(), torch.full((3,), 5.0))
    with pytest.raises(RuntimeError, match="inside"), average.in_place():
        raise RuntimeError("inside")
    assert torch.equal(members[0].detach(), torch.full((3,), 5.0))


def test_swapping_in_and_out_does_not_change_the_average() -> None:
    members = parameters()
    average = WeightAverage(members, 0.9)
    seen = []
    for _ in range(3):
        set_to(members, 5.0)
        with average.in_place():
            seen.append(members[0].detach().clone())
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])


def test_no_decay_averages_nothing() -> None:
    members = parameters()
    average = WeightAverage(members, 0.0)
    set_to(members, 5.0)
    average.update()
    with average.in_place():
        assert torch.equal(members[0].detach(), torch.full((3,), 5.0))
    assert average.state_dict()["values"] == []


def test_state_goes_on_where_it_was() -> None:
    torch.manual_seed(0)
    steps = [torch.randn(3) for _ in range(12)]
    found = []
    for interrupted in (False, True):
        members = [nn.Parameter(torch.zeros(3))]
        average = WeightAverage(members, 0.9)
        for number, step in enumerate(steps):
            if interrupted and number == 5:
                stored = {"updates": average.state_dict()["updates"], "values": [members[0].detach().clone()]}
                with average.in_place():
                    stored["values"] = [members[0].detach().clone()]
                average = WeightAverage(members, 0.9)
                average.load_state_dict(stored)
            members[0].data.copy_(step)
            average.update()
        with average.in_place():
            found.append(members[0].detach().clone())
    assert torch.equal(found[0], found[1])
