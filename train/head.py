"""The head alone: multinomial logistic regression on cached features, solved to convergence.

With everything below frozen this is a convex problem; L-BFGS solves it in seconds, where gradient descent with a
learning rate to guess would take epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["HeadFit", "fit_head"]

PENALTIES = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
"""L2 penalties that are tried, on standardised features; validation decides."""


@dataclass(frozen=True)
class HeadFit:
    """A fitted head.

    Attributes:
        weight: (classes, features), for raw features: standardisation is folded in.
        bias: (classes,).
        penalty: The L2 penalty that validated best.
        tried: (penalty, training top-1, validation top-1, training loss) for each penalty, strongest first.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    tried: tuple[tuple[float, float, float, float], ...]


def fit_head(train: tuple[torch.Tensor, torch.Tensor], val: tuple[torch.Tensor, torch.Tensor], classes: int) -> HeadFit:
    """Fit a linear head.

    Args:
        train: Features float32 (N, features) and labels int64 (N).
        val: The same for validation; chooses the penalty (by top-1, then by loss).
        classes: Number of classes.
    """
    features, labels = train
    mean, std = features.mean(0), features.std(0)
    # A channel that hardly ever changes says nothing; divided by its deviation, its rounding noise would. One that
    # changes little is not scaled up to the others either: INT8, whose steps are the same for all of them, would add
    # noise to it that the head then magnifies.
    floor = 0.5 * std.median()
    std = torch.where(std > 1e-5 * std.max(), std.clamp(min=float(floor)), torch.full_like(std, torch.inf))
    standardised = (features - mean) / std
    val_standardised = (val[0] - mean) / std

    head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    best: tuple[float, float] | None = None
    chosen = (head.weight.detach().clone(), head.bias.detach().clone(), PENALTIES[0])
    tried = []
    # Each solution is a good start for the next weaker penalty.
    for penalty in PENALTIES:
        loss = _solve(head, standardised, labels, penalty)
        with torch.no_grad():
            train_top1 = _top1(head(standardised), labels)
            logits = head(val_standardised)
            score = (_top1(logits, val[1]), -functional.cross_entropy(logits, val[1]).item())
        tried.append((penalty, train_top1, score[0], loss))
        if best is None or score > best:
            best = score
            chosen = (head.weight.detach().clone(), head.bias.detach().clone(), penalty)
    weight, bias, penalty = chosen
    return HeadFit(weight / std, bias - weight @ (mean / std), penalty, tuple(tried))


def _solve(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor, penalty: float) -> float:
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=60, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(features), labels) + 0.5 * penalty * head.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return functional.cross_entropy(head(features), labels).item()


def _top1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()
