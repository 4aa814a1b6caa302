"""Figures of a result: accuracy with its interval, and what each class got."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ClassScore", "Confusion", "class_scores", "most_confused", "percent", "wilson"]

_Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share, 0..1, as text; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, 0..1 (Wilson, "Probable inference, the law of succession, …", JASA 1927).

    Unlike share ± 2 deviations it stays inside 0..1 and is not empty for 0 or `count` right answers.
    """
    if count == 0:
        return 0.0, 1.0
    share, z2 = right / count, _Z * _Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        index: Its label.
        train: Pictures of it in the training split.
        count: Pictures of it in the measured split.
        predicted: Pictures that were named so.
        right: Pictures of it that were named so.
    """

    index: int
    name: str
    train: int
    count: int
    predicted: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of the pictures named so that are; None if none was."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Share of its pictures that were named so; None if there are none."""
        return self.right / self.count if self.count else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if the class has no pictures and was never named."""
        total = self.count + self.predicted
        return 2 * self.right / total if total else None


def class_scores(
    confusion: npt.NDArray[np.int64], classes: Sequence[str], train: Mapping[str, int]
) -> tuple[ClassScore, ...]:
    """Every class, weakest F1 first, those without any pictures last.

    Args:
        confusion: Counts, axes [true class, predicted class].
        classes: Names by index.
        train: Training pictures by name.
    """
    found = [
        ClassScore(
            index,
            name,
            train[name],
            int(confusion[index].sum()),
            int(confusion[:, index].sum()),
            int(confusion[index, index]),
        )
        for index, name in enumerate(classes)
    ]
    return tuple(sorted(found, key=lambda score: (score.f1 is None, score.f1 or 0.0, score.index)))


@dataclass(frozen=True)
class Confusion:
    """How often one class was taken for another."""

    true: str
    said: str
    count: int


def most_confused(confusion: npt.NDArray[np.int64], classes: Sequence[str], most: int) -> tuple[Confusion, ...]:
    """The commonest mistakes, at most `most`, commonest first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(place, wrong.shape) for place in order)
    return tuple(
        Confusion(classes[row], classes[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]
    )
