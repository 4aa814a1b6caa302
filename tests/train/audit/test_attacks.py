"""Attacks keep their bound, stay on the pixel grid, and are as strong as their papers say one to the other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from edgewright.train.audit.attacks import (
    away_from,
    fgsm_signs,
    mimic,
    misclassify,
    pgd,
    random_signs,
    shifted,
)
from edgewright.train.backbones.surgery import plan_stages, split_at

from .conftest import Trained

EPS = (2, 4, 8, 16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def right(trained: Trained, pixels: torch.Tensor) -> torch.Tensor:
    """Which of the pictures the network names rightly."""
    with torch.inference_mode():
        return trained.network(pixels).argmax(1) == trained.labels


def change(trained: Trained, pixels: torch.Tensor) -> int:
    return int((pixels.int() - trained.pixels.int()).abs().max())


@pytest.fixture(scope="module")
def searched(trained: Trained) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    objective = misclassify(trained.network, trained.labels)
    return {eps: pgd(objective, trained.pixels, eps, steps=8, generator=generator()) for eps in EPS}


def test_network_has_learnt_the_digits(trained: Trained) -> None:
    assert right(trained, trained.pixels).float().mean() >= 0.75


@pytest.mark.parametrize("eps", EPS)
def test_pgd_keeps_its_bound_on_the_pixel_grid(
    trained: Trained, searched: dict[int, tuple[torch.Tensor, torch.Tensor]], eps: int
) -> None:
    pixels, _ = searched[eps]
    assert pixels.dtype == torch.uint8
    assert 0 < change(trained, pixels) <= eps


@pytest.mark.parametrize("eps", EPS)
def test_what_pgd_reports_holds_for_the_uint8_pictures(
    trained: Trained, searched: dict[int, tuple[torch.Tensor, torch.Tensor]], eps: int
) -> None:
    pixels, reached = searched[eps]
    assert torch.equal(reached, ~right(trained, pixels))


def test_pgd_is_as_strong_as_fgsm_and_both_are_stronger_than_noise(
    trained: Trained, searched: dict[int, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    signs = fgsm_signs(misclassify(trained.network, trained.labels), trained.pixels)
    noise = random_signs(trained.pixels, generator())
    by = {
        name: sum(int(right(trained, shifted(trained.pixels, eps * direction)).sum()) for eps in EPS)
        for name, direction in (("fgsm", signs), ("noise", noise))
    }
    by_pgd = sum(int(right(trained, searched[eps][0]).sum()) for eps in EPS)
    assert by_pgd <= by["fgsm"] < by["noise"]


def test_accuracy_falls_with_the_bound(
    trained: Trained, searched: dict[int, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    counts = [int(right(trained, searched[eps][0]).sum()) for eps in EPS]
    # One picture may go the other way: the searches start from different random points.
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(counts))
    assert counts[-1] < 0.3 * int(right(trained, trained.pixels).sum())


def test_search_repeats_for_the_same_seed(
    trained: Trained, searched: dict[int, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    again, _ = pgd(misclassify(trained.network, trained.labels), trained.pixels, 4, steps=8, generator=generator())
    assert torch.equal(again, searched[4][0])


def test_signs_are_those_of_the_cross_entropy(trained: Trained) -> None:
    shown = trained.pixels.float().requires_grad_()
    loss = nn.functional.cross_entropy(trained.network(shown), trained.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, shown)
    ours = fgsm_signs(misclassify(trained.network, trained.labels), trained.pixels)
    # Not all: of a derivative near zero rounding decides the sign.
    assert (gradient.sign() == ours).float().mean() > 0.99


def test_network_that_is_sure_of_itself_is_attacked_all_the_same(trained: Trained) -> None:
    class Sure(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = 1e4 * trained.network(pixels)
            return logits

    signs = fgsm_signs(misclassify(Sure(), trained.labels), trained.pixels)
    assert (signs != 0).float().mean() > 0.9


def test_random_signs_are_as_large_as_the_attack_and_without_aim(trained: Trained) -> None:
    signs = random_signs(trained.pixels, generator())
    assert set(signs.unique().tolist()) == {-1, 1}
    assert abs(float(signs.float().mean())) < 0.02


def test_shifted_pictures_stay_pictures() -> None:
    pixels = torch.tensor([0, 3, 252, 255], dtype=torch.uint8)
    assert shifted(pixels, torch.tensor([-8, -8, 8, 8], dtype=torch.int16)).tolist() == [0, 0, 255, 255]


def test_examples_for_another_network_go_on_after_the_answer_has_changed(trained: Trained) -> None:
    def margin(pixels: torch.Tensor) -> float:
        with torch.no_grad():
            rows = torch.arange(len(pixels))
            return float(away_from(trained.network, trained.labels)(pixels.float(), rows)[0].mean())

    far, _ = pgd(away_from(trained.network, trained.labels), trained.pixels, 8, steps=8, generator=generator())
    near, _ = pgd(misclassify(trained.network, trained.labels), trained.pixels, 8, steps=8, generator=generator())
    assert margin(far) > margin(near)


def test_mimicry_brings_the_features_nearer(trained: Trained) -> None:
    plan = plan_stages(trained.network, trained.pixels[:1])
    features, _ = split_at(plan, plan.cuts[-1])
    with torch.no_grad():
        wanted = features(trained.pixels.flip(0))
    objective = mimic(features.eval(), wanted)
    rows = torch.arange(len(trained.pixels))
    with torch.no_grad():
        before, _ = objective(trained.pixels.float(), rows)
    made, _ = pgd(objective, trained.pixels, 8, steps=8, generator=generator())
    with torch.no_grad():
        after, _ = objective(made.float(), rows)
    assert change(trained, made) <= 8
    assert float(after.mean()) > 0.7 * float(before.mean())
    assert (after > before).float().mean() > 0.95
