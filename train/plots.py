"""Pictures of a run: curves, confusion matrix, the worst mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data.samples import Sample
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_confusion", "plot_curves", "plot_mistakes"]

_LARGEST_ANNOTATED = 30
"""Beyond this many classes the numbers in a confusion matrix cannot be read, so only colours are drawn."""


def _figure(width: float, height: float) -> Figure:
    # The object interface draws without a display and without global state.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plot_curves(records: Sequence[EpochRecord], head_only: bool, path: Path) -> None:
    """Loss and top-1 per epoch, or per L2 penalty for a head that was solved for."""
    figure = _figure(9, 3.6)
    loss_axes, top1_axes = figure.subplots(1, 2)
    # For a head, `lr` holds the penalty.
    steps = [record.lr if head_only else record.epoch for record in records]
    loss_axes.plot(steps, [record.train_loss for record in records], marker="o", color="tab:gray")
    loss_axes.set_ylabel("training loss")
    top1_axes.plot(steps, [record.train_top1 for record in records], marker="o", color="tab:gray", label="training")
    top1_axes.plot(steps, [record.val_top1 for record in records], marker="o", color="tab:blue", label="validation")
    top1_axes.set_ylabel("top-1")
    top1_axes.legend()
    for axes in (loss_axes, top1_axes):
        axes.grid(alpha=0.3)
        if head_only:
            axes.set_xscale("log")
            axes.invert_xaxis()
            axes.set_xlabel("L2 penalty (weaker to the right)")
        else:
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)


def plot_confusion(result: SplitResult, classes: Sequence[str], split: str, path: Path) -> None:
    """Counts, true classes down and predictions across; the colour is the share of the row."""
    counts = result.confusion()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(24.0, 3 + 0.45 * len(classes))
    figure = _figure(size + 1, size)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_title(f"{split}: top-1 {result.top1:.1%} of {len(result.labels)}")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= 100:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= _LARGEST_ANNOTATED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, dpi=120)


def plot_mistakes(
    result: SplitResult, samples: Sequence[Sample], classes: Sequence[str], spec: Preprocess, path: Path, most: int = 16
) -> int:
    """The wrong answers with the highest score, as the model saw them. Returns how many mistakes there are in all."""
    shifted = np.exp(result.logits - result.logits.max(axis=1, keepdims=True))
    scores = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
    wrong = np.nonzero(result.predicted != result.labels)[0]
    worst = wrong[np.argsort(-scores[wrong], kind="stable")][:most]
    columns = 4
    rows = max(1, math.ceil(len(worst) / columns))
    figure = _figure(columns * 2.3, rows * 2.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, worst, strict=False):
        axes.imshow(preprocess(samples[index].source, spec))
        said, true = classes[result.predicted[index]], classes[result.labels[index]]
        axes.set_title(f"{said} {scores[index]:.0%}\nis {true}", fontsize=9)
    if len(worst) == 0:
        grid[0][0].text(0, 0.5, "no mistakes", fontsize=14)
    figure.savefig(path, dpi=110)
    return len(wrong)
