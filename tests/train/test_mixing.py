"""Pictures and labels are mixed in the same proportion, by the ways that were asked for."""

from __future__ import annotations

import pytest
import torch

from edgewright.train.mixing import Mixer

CLASSES = 4
LABELS = torch.tensor([0, 1, 2, 3])


def flat_pictures() -> torch.Tensor:
    """Picture n is 10 n all over: mixed, its level tells the share of each of the two."""
    levels = torch.tensor([0, 50, 100, 200], dtype=torch.uint8)
    return levels.view(4, 1, 1, 1).expand(4, 16, 16, 3).contiguous()


def flat_activations() -> torch.Tensor:
    return torch.tensor([0.0, 50.0, 100.0, 200.0]).view(4, 1, 1, 1).expand(4, 5, 8, 8).contiguous()


@pytest.mark.parametrize("inputs", [flat_pictures(), flat_activations(), torch.randn(4, 7)])
def test_nothing_asked_for_changes_nothing(inputs: torch.Tensor) -> None:
    mixed, targets = Mixer(0.0, 0.0, CLASSES)(inputs, LABELS)
    assert mixed is inputs
    assert targets is LABELS


@pytest.mark.parametrize("ways", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("inputs", [flat_pictures(), flat_activations()])
def test_labels_are_shares_of_what_the_picture_shows(ways: tuple[float, float], inputs: torch.Tensor) -> None:
    torch.manual_seed(0)
    levels = torch.tensor([0.0, 50.0, 100.0, 200.0])
    mixer, changed = Mixer(*ways, CLASSES), 0
    for _ in range(20):
        mixed, targets = mixer(inputs, LABELS)
        assert (mixed.dtype, mixed.shape) == (torch.float32, inputs.shape)
        assert torch.allclose(targets.sum(dim=1), torch.ones(4))
        # The mean over the picture is the mean of the two pictures' levels, weighted with their shares.
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ levels, atol=1e-3)
        changed += int((mixed != inputs).any())
    assert changed > 10


def test_mixup_blends_and_cutmix_pastes() -> None:
    torch.manual_seed(0)
    blended, _ = Mixer(5.0, 0.0, CLASSES)(flat_pictures(), LABELS)
    assert all(len(picture.unique()) == 1 for picture in blended)
    levels = {0.0, 50.0, 100.0, 200.0}
    pasted, _ = Mixer(0.0, 5.0, CLASSES)(flat_pictures(), LABELS)
    assert set(pasted.unique().tolist()) <= levels
    assert any(len(picture.unique()) == 2 for picture in pasted)


def test_both_ways_are_used_in_turn() -> None:
    torch.manual_seed(0)
    mixer = Mixer(5.0, 5.0, CLASSES)
    pasted = sum(
        set(mixer(flat_pictures(), LABELS)[0].unique().tolist()) <= {0.0, 50.0, 100.0, 200.0} for _ in range(60)
    )
    assert 15 < pasted < 45


def test_mixing_follows_from_torchs_seed() -> None:
    mixer, found = Mixer(0.8, 1.0, CLASSES), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append([mixer(flat_pictures(), LABELS) for _ in range(5)])
    for (first, one), (second, other) in zip(*found, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(one, other)


def test_inputs_are_not_changed_in_place() -> None:
    inputs = flat_activations()
    Mixer(5.0, 0.0, CLASSES)(inputs, LABELS)
    assert torch.equal(inputs, flat_activations())


def test_single_picture_has_nobody_to_be_mixed_with() -> None:
    mixed, targets = Mixer(1.0, 1.0, CLASSES)(flat_pictures()[:1], LABELS[:1])
    assert torch.equal(mixed, flat_pictures()[:1])
    assert torch.equal(targets, LABELS[:1])
