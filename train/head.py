"""The head alone: multinomial logistic regression on cached features, solved to convergence.

With everything below frozen this is a convex problem; L-BFGS solves it in seconds, where gradient descent with a
learning rate to guess would take epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Features", "HeadFit", "fit_head"]

PENALTIES = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
"""L2 penalties that are tried, on standardised features; validation decides."""

START_PENALTY = 0.1
"""A head that will see augmented pictures, and features that move, must not lean on small differences."""

_IN_MEMORY = 8192
"""Up to so many rows are read once and kept; of more, the solver reads `_CHUNK` at a time, as often as it needs them."""

_CHUNK = 2048


class Features:
    """Features float32 (N, features) that need not fit into memory, with their labels int64 (N)."""

    def __init__(self, read: Callable[[slice], torch.Tensor], labels: torch.Tensor) -> None:
        self.labels = labels
        self._read = read
        self._only = read(slice(0, len(labels))) if len(labels) <= _IN_MEMORY else None

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(features, labels), some rows at a time."""
        if self._only is not None:
            yield self._only, self.labels
            return
        for start in range(0, len(self.labels), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(self.labels)))
            yield self._read(rows), self.labels[rows]


@dataclass(frozen=True)
class HeadFit:
    """A fitted head.

    Attributes:
        weight: (classes, features), for raw features: standardisation is folded in.
        bias: (classes,).
        penalty: The L2 penalty that validated best.
        tried: (penalty, training top-1, validation top-1, training loss) for each penalty, strongest first.
        start: (weight, bias) to train on from: the best of those whose penalty is at least `START_PENALTY`.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    tried: tuple[tuple[float, float, float, float], ...]
    start: tuple[torch.Tensor, torch.Tensor]


def fit_head(train: Features, val: Features, classes: int, class_weights: torch.Tensor | None = None) -> HeadFit:
    """Fit a linear head.

    Args:
        train: To fit on.
        val: Chooses the penalty (by top-1, then by loss).
        classes: Number of classes.
        class_weights: float32 (classes), to balance the loss.
    """
    mean, std = _moments(train)
    # A channel that hardly ever changes says nothing; divided by its deviation, its rounding noise would. One that
    # changes little is not scaled up to the others either: INT8, whose steps are the same for all of them, would add
    # noise to it that the head then magnifies.
    floor = 0.5 * std.median()
    std = torch.where(std > 1e-5 * std.max(), std.clamp(min=float(floor)), torch.full_like(std, torch.inf))
    weights = torch.ones(classes) if class_weights is None else class_weights
    head = nn.Linear(len(mean), classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    problem = _Problem(head, mean, std, weights)
    found: list[tuple[tuple[float, float], float, torch.Tensor, torch.Tensor]] = []
    tried = []
    # Each solution is a good start for the next weaker penalty.
    for penalty in PENALTIES:
        problem.solve(train, penalty)
        train_loss, train_top1 = problem.score(train)
        val_loss, val_top1 = problem.score(val)
        tried.append((penalty, train_top1, val_top1, train_loss))
        weight, bias = head.weight.detach(), head.bias.detach()
        found.append(((val_top1, -val_loss), penalty, weight / std, bias - weight @ (mean / std)))
    _, penalty, weight, bias = max(found, key=lambda solution: solution[0])
    _, _, *start = max((one for one in found if one[1] >= START_PENALTY), key=lambda solution: solution[0])
    return HeadFit(weight, bias, penalty, tuple(tried), (start[0], start[1]))


class _Problem:
    """The loss of `head` on standardised features, summed over chunks."""

    def __init__(self, head: nn.Linear, mean: torch.Tensor, std: torch.Tensor, weights: torch.Tensor) -> None:
        self._head, self._mean, self._std, self._weights = head, mean, std, weights

    def _losses(self, features: Features) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(loss summed, logits, labels) of each chunk."""
        for values, labels in features.chunks():
            logits = self._head((values - self._mean) / self._std)
            yield functional.cross_entropy(logits, labels, self._weights, reduction="sum"), logits, labels

    def solve(self, features: Features, penalty: float) -> None:
        parameters = list(self._head.parameters())
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=60, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
        )
        total = float(self._weights[features.labels].sum())

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = 0.5 * penalty * self._head.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            value = loss.detach()
            for part, _, _ in self._losses(features):
                (part / total).backward()  # type: ignore[no-untyped-call]
                value = value + part.detach() / total
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]

    def score(self, features: Features) -> tuple[float, float]:
        """Mean loss and top-1."""
        loss, right = 0.0, 0
        with torch.no_grad():
            for part, logits, labels in self._losses(features):
                loss += part.item()
                right += int((logits.argmax(1) == labels).sum())
        return loss / float(self._weights[features.labels].sum()), right / len(features.labels)


def _moments(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every feature, in two passes."""
    count = len(features.labels)

    def total(of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        parts = (part for values, _ in features.chunks() for part in torch.split(values, _CHUNK))
        return torch.stack([of(part.double()).sum(0) for part in parts]).sum(0)

    mean = total(lambda values: values) / count
    squares = total(lambda values: (values - mean).square())
    return mean.float(), (squares / max(1, count - 1)).sqrt().float()
