"""The wrong answers that were given with the highest scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.runtime.scores import softmax
from edgewright.train.data.samples import Sample
from edgewright.train.evaluation import SplitResult
from edgewright.train.report.style import drawing, legible, photograph_grid

__all__ = ["Mistake", "plot_mistakes", "worst_mistakes"]

_COLUMNS = 6
_SIDE_PX = 150


@dataclass(frozen=True)
class Mistake:
    """A picture (its index in the split), what the network said and with what score (0..1), and what is true."""

    index: int
    said: int
    score: float
    true: int


def worst_mistakes(result: SplitResult, most: int = 12) -> tuple[Mistake, ...]:
    """At most `most` wrong answers, highest score first."""
    predicted = result.predicted
    scores = softmax(result.logits).max(axis=1)
    wrong = np.nonzero(predicted != result.labels)[0]
    worst = wrong[np.argsort(-scores[wrong], kind="stable")][:most]
    return tuple(
        Mistake(int(index), int(predicted[index]), float(scores[index]), int(result.labels[index])) for index in worst
    )


def plot_mistakes(
    mistakes: Sequence[Mistake], samples: Sequence[Sample], classes: Sequence[str], spec: Preprocess, path: Path
) -> None:
    """Each as the network saw it, with what it said and what is true; there must be at least one."""
    names = legible(classes, 16)
    columns = min(_COLUMNS, len(mistakes))
    rows = math.ceil(len(mistakes) / columns)
    with drawing(path, max(2.4, columns * 1.55), rows * 1.95, photographs=True) as figure:
        grid = photograph_grid(figure, rows, columns, 2)
        for axes, mistake in zip(grid.flat, mistakes, strict=False):
            picture = Image.fromarray(preprocess(samples[mistake.index].source, spec))
            # Enlarged small pictures keep their pixels: that is what the network had to go by.
            how = Image.Resampling.NEAREST if picture.width < _SIDE_PX else Image.Resampling.BILINEAR
            axes.imshow(np.asarray(picture.resize((_SIDE_PX, _SIDE_PX), how)))
            axes.set_title(f"{names[mistake.said]} {mistake.score:.0%}\nis {names[mistake.true]}", fontsize=8)
