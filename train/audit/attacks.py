"""Adversarial examples under an L-infinity bound, searched among the pictures that a device can be shown.

Every picture that is tried holds whole numbers from 0 to 255, so what is reported is what a file or a camera can hold;
a perturbation of less than half a step, which an attack in floating point makes use of, would be rounded away.

The packages for this were looked at in November 2026: torchattacks (last release 2023, pins requests 2.25), foolbox
(2024), cleverhans (2021, needs TensorFlow Probability), adversarial-robustness-toolbox (July 2025). None keeps to the
pixel grid; the two attacks are a page of torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["Objective", "away_from", "fgsm_signs", "mimic", "misclassify", "pgd", "random_signs", "shifted"]

Objective = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""What an attack maximises: (pixels float32 (n, height, width, 3) in 0..255, their rows int64 (n)) -> (values (n), and
bool (n): whether that picture has reached all it was made for)."""


def misclassify(network: nn.Module, labels: torch.Tensor) -> Objective:
    """Away from `labels` (N), and content with any other answer."""

    def objective(pixels: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = network(pixels)
        return _against(logits, labels[rows]), logits.argmax(1) != labels[rows]

    return objective


def away_from(network: nn.Module, labels: torch.Tensor) -> Objective:
    """As far away from `labels` (N) as it goes: for examples that shall work on another network."""

    def objective(pixels: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _against(network(pixels), labels[rows]), torch.zeros_like(rows, dtype=torch.bool)

    return objective


def mimic(features: nn.Module, wanted: torch.Tensor) -> Objective:
    """Towards pictures whose `features` are `wanted` (N, ...): smallest mean squared difference."""

    def objective(pixels: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        difference = (features(pixels) - wanted[rows]).flatten(1)
        return -difference.square().mean(1), torch.zeros_like(rows, dtype=torch.bool)

    return objective


def _against(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log(sum of exp(z_j - z_y) over j != y), (n): grows with the cross-entropy, which is softplus of it.

    The gradients of the two point the same way, so the attacks take the same steps; but that of the cross-entropy
    underflows to zero for a network that is sure of itself, and this one's does not.
    """
    others = logits.masked_fill(nn.functional.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return others.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)


def shifted(pixels: torch.Tensor, perturbation: torch.Tensor) -> torch.Tensor:
    """uint8 `pixels` plus whole numbers, kept in 0..255, as uint8."""
    return (pixels.to(torch.int16) + perturbation.to(torch.int16)).clamp(0, 255).to(torch.uint8)


def random_signs(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """-1 or 1 for every value of `pixels`, int16: noise as large as an adversarial perturbation, without its aim."""
    signs = torch.randint(0, 2, pixels.shape, generator=generator, dtype=torch.int16) * 2 - 1
    return signs.to(pixels.device)


def fgsm_signs(objective: Objective, pixels: torch.Tensor) -> torch.Tensor:
    """Signs of the gradient at `pixels` (uint8, (N, height, width, 3)), int16; the bound times these is the attack.

    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples" (ICLR 2015).
    """
    shown = pixels.float().requires_grad_()
    values, _ = objective(shown, torch.arange(len(pixels), device=pixels.device))
    (gradient,) = torch.autograd.grad(values.sum(), shown)
    return gradient.sign().to(torch.int16)


def pgd(
    objective: Objective, pixels: torch.Tensor, eps: int, *, steps: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Projected gradient ascent from a random start.

    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), with their steps of
    2.5 eps / steps. The perturbation is kept in floating point, but the network is shown it rounded. The best picture
    of all steps counts, and a picture that has reached its end is left alone.

    Args:
        objective: What to maximise.
        pixels: uint8, (N, height, width, 3).
        eps: Largest change of a pixel, of 255.
        steps: Gradients per picture.
        generator: For the random start; on the CPU.

    Returns:
        Pictures, uint8, shaped as `pixels`, and bool (N): which reached their end.
    """
    clean = pixels.float()
    start = torch.empty(pixels.shape).uniform_(-eps, eps, generator=generator)
    perturbation = start.to(pixels.device)
    best, value = pixels.clone(), torch.full((len(pixels),), -torch.inf, device=pixels.device)
    reached = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    for step in range(steps + 1):
        rows = (~reached).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        # Whole numbers plus at most eps, a whole number too: rounding stays within the bound.
        shown = (clean[rows] + perturbation[rows]).round().clamp(0, 255).requires_grad_(step < steps)
        values, there = objective(shown, rows)
        better = (values.detach() > value[rows]) | there
        best[rows[better]] = shown.detach()[better].to(torch.uint8)
        value[rows[better]] = values.detach()[better]
        reached[rows] = there
        if step < steps:
            (gradient,) = torch.autograd.grad(values.sum(), shown)
            perturbation[rows] = (perturbation[rows] + 2.5 * eps / steps * gradient.sign()).clamp(-eps, eps)
    return best, reached
