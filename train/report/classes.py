"""What a result looks like class by class, and how much its scores mean, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright.train.evaluation import SplitResult
from edgewright.train.report.scores import ClassScore, wilson
from edgewright.train.report.style import BLUE, GREY, ORANGE, RED, SKY, drawing, legible, percent_axis
from edgewright.train.temperature import expected_calibration_error, reliability_bins

__all__ = ["MOST_BARS", "plot_confusion", "plot_per_class", "plot_reliability"]

MOST_BARS = 30
"""The weakest classes that `plot_per_class` draws."""

_MOST_NAMED = 60
_MOST_NUMBERED = 25


def plot_confusion(confusion: npt.NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """Counts, true classes down and predictions across; the colour is the share of the row.

    Beyond 25 classes the numbers could not be read, beyond 60 the names; then only colours are drawn.
    """
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    named = len(classes) <= _MOST_NAMED
    size = min(9.0, 2.8 + 0.4 * len(classes)) if named else 7.5
    with drawing(path, size + 0.6, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if named else "antialiased")
        figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7, aspect=30)
        axes.set_title(title)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if named:
            small = 9 if len(classes) <= _MOST_NUMBERED else 6.5
            names = legible(classes)
            axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=small)
            axes.set_yticks(range(len(classes)), names, fontsize=small)
            axes.tick_params(length=0)
        if len(classes) <= _MOST_NUMBERED:
            for row, column in zip(*np.nonzero(confusion), strict=True):
                colour = "white" if share[row, column] > 0.5 else "black"
                number = str(confusion[row, column])
                axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=8)


def plot_per_class(scores: Sequence[ClassScore], classes: Sequence[str], path: Path) -> None:
    """Precision and recall per class with 95 % intervals, the weakest F1 on top; at most `MOST_BARS` classes."""
    shown = [score for score in scores if score.f1 is not None][:MOST_BARS]
    names = legible(classes)
    places = np.arange(len(shown))
    with drawing(path, 9.2, 1.0 + 0.34 * max(2, len(shown))) as figure:
        axes = figure.subplots()
        for offset, colour, label, parts in (
            (-0.19, BLUE, "recall (found, of its pictures)", [(score.right, score.count) for score in shown]),
            (0.19, ORANGE, "precision (right, of the answers)", [(score.right, score.predicted) for score in shown]),
        ):
            known = [(place, right, count) for place, (right, count) in zip(places, parts, strict=True) if count]
            share = np.array([right / count for _, right, count in known])
            ends = np.array([wilson(right, count) for _, right, count in known]).reshape(-1, 2)
            where = [place + offset for place, _, _ in known]
            axes.barh(where, share, height=0.34, color=colour, label=label)
            axes.hlines(where, ends[:, 0], ends[:, 1], color="#333333", linewidth=0.8)
        labels = [f"{names[score.index]}  ({score.count} / {score.train})" for score in shown]
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        percent_axis(axes.xaxis)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2)


def plot_reliability(result: SplitResult, temperature: float | None, path: Path) -> None:
    """Accuracy against score, as trained and, where a temperature was folded in, as written.

    Args:
        result: Of the network as written.
        temperature: What its logits were divided by.
        path: The PNG.
    """
    panels = [("scores", result.logits)]
    if temperature is not None:
        panels = [("as trained", result.logits * temperature), (f"temperature {temperature:.2f}", result.logits)]
    with drawing(path, 4.3 * len(panels), 3.9) as figure:
        grid = figure.subplots(2, len(panels), squeeze=False, height_ratios=(4, 1), sharex=True)
        for column, (title, logits) in enumerate(panels):
            bins = reliability_bins(logits, result.labels)
            edges = np.arange(len(bins.count)) / len(bins.count)
            width = 1 / len(bins.count)
            accuracy, score = np.nan_to_num(bins.accuracy), np.nan_to_num(bins.score)
            axes, below = grid[0][column], grid[1][column]
            bar = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.7}
            both = np.minimum(accuracy, score)
            axes.bar(edges, both, color=BLUE, label="right, as claimed", **bar)
            axes.bar(edges, accuracy - both, bottom=both, color=SKY, label="right, more than claimed", **bar)
            axes.bar(edges, score - both, bottom=both, color=RED, alpha=0.5, label="claimed, not right", **bar)
            axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
            error = expected_calibration_error(logits, result.labels)
            axes.set_title(f"{title}: calibration error {error:.1%}")
            axes.set_ylim(0, 1)
            below.bar(edges, bins.count / max(1, bins.count.sum()), color=GREY, **bar)
            below.set_xlim(0, 1)
            below.set_xlabel("score of the answer")
            percent_axis(below.xaxis)
            percent_axis(axes.yaxis)
            below.set_yticks([])
        grid[0][0].set_ylabel("right")
        grid[1][0].set_ylabel("pictures")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
