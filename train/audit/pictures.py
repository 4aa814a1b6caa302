"""The audit in pictures: accuracy against strength and bound, and what the spoilt and the adversarial pictures look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgewright.train.audit.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from edgewright.train.audit.report import chosen_eps
from edgewright.train.audit.results import Audit, RunAudit
from edgewright.train.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    drawing,
    legible,
    percent_axis,
    photograph_grid,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["draw_audit"]

_COLOURS = {"noise": GREY, "fgsm": ORANGE, "pgd": RED, "scores": BLUE, "features": GREEN}
_LABELS = {
    "noise": "noise",
    "fgsm": "FGSM on the run",
    "pgd": "PGD on the run",
    "scores": "made on the teacher's scores",
    "features": "made on the teacher's features",
}
_WIDTHS = {"noise": 3.0, "fgsm": 3.0}
_COLUMNS = 4


def draw_audit(audit: Audit, folder: Path) -> list[tuple[str, str]]:
    """Write the PNGs of an audit into `folder`; (title, file) of each. Example pictures are of the first run."""
    _plot_corruptions(audit, folder / "corruptions.png")
    _plot_attacks(audit, folder / "attacks.png")
    first = audit.runs[0]
    classes = legible(audit.classes)
    _show_corruptions(first, audit.plan.seed, classes, folder / "spoilt.png")
    _show_examples(first, chosen_eps(audit), classes, folder / "adversarial.png")
    return [
        ("Accuracy against the strength of a corruption", "corruptions.png"),
        ("Accuracy against the bound of an attack", "attacks.png"),
        (f"One picture spoilt, and what {first.subject.name} answers", "spoilt.png"),
        (f"The same picture under attack, and what {first.subject.name} answers", "adversarial.png"),
    ]


def _plot_corruptions(audit: Audit, path: Path) -> None:
    rows = math.ceil(len(CORRUPTIONS) / _COLUMNS)
    with drawing(path, 2.6 * _COLUMNS, 2.3 * rows + 0.3) as figure:
        grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True)
        for axes, name in zip(grid.flat, CORRUPTIONS, strict=True):
            for number, one in enumerate(audit.runs):
                colour = PALETTE[number % len(PALETTE)]
                values = [one.top1, *one.corruptions[name]]
                axes.plot([0, *STRENGTHS], values, marker="o", markersize=3.5, color=colour, label=one.subject.name)
            axes.set_title(name)
            axes.set_ylim(0, 1.02)
            axes.set_xticks([0, *STRENGTHS])
            axes.grid()
            percent_axis(axes.yaxis)
        figure.supxlabel("strength (0: the picture as it is)")
        figure.supylabel("top-1")
        if len(audit.runs) > 1:
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))


def _plot_attacks(audit: Audit, path: Path) -> None:
    columns = min(_COLUMNS, len(audit.runs))
    rows = math.ceil(len(audit.runs) / columns)
    with drawing(path, max(6.4, 3.0 * columns), 2.9 * rows + 0.7) as figure:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(audit.runs) :]:
            axes.set_axis_off()
        seen: dict[str, Artist] = {}
        for axes, one in zip(grid.flat, audit.runs, strict=False):
            axes.axhline(one.top1, color="black", linewidth=0.8, linestyle=":")
            for attack, colour in _COLOURS.items():
                points = [(row.eps, row.top1) for row in one.attacks if row.attack == attack]
                if points:
                    # Wider at the bottom, so that lines which lie on each other are both seen.
                    wide = _WIDTHS.get(attack, 1.5)
                    (line,) = axes.plot(
                        *zip(*points, strict=True), marker="o", markersize=2.5 * wide, linewidth=wide, color=colour
                    )
                    seen[_LABELS[attack]] = line
            axes.set_xscale("log", base=2)
            axes.set_xticks(audit.plan.eps, [str(eps) for eps in audit.plan.eps])
            axes.minorticks_off()
            axes.set_ylim(0, 1.02)
            percent_axis(axes.yaxis)
            axes.grid()
            axes.set_title(f"{one.subject.name}: {one.subject.frozen} of {one.subject.stages} stages frozen")
        figure.supxlabel("largest change of a pixel, of 255 (dotted: without any)")
        figure.supylabel("top-1")
        figure.legend(list(seen.values()), list(seen), loc="outside upper center", ncols=2 if columns < 3 else 3)


def _show_corruptions(one: RunAudit, seed: int, classes: Sequence[str], path: Path) -> None:
    subject = one.subject
    pixels = subject.pixels[one.shown].cpu().numpy()
    true = int(subject.labels[one.shown])
    with drawing(path, 1.5 * (len(STRENGTHS) + 1), 1.65 * len(CORRUPTIONS), photographs=True) as figure:
        grid = photograph_grid(figure, len(CORRUPTIONS), len(STRENGTHS) + 1, 1)
        for row, name in zip(grid, CORRUPTIONS, strict=True):
            _picture(row[0], pixels, f"{name}: {classes[true]}")
            for axes, strength, answer in zip(row[1:], STRENGTHS, one.spoilt[name], strict=True):
                spoilt = corrupt(pixels, name, strength, seed=seed, index=one.shown)
                _answer(axes, spoilt, f"{strength}: {classes[answer]}", answer == true)


def _show_examples(one: RunAudit, eps: int, classes: Sequence[str], path: Path) -> None:
    """One attack per row: the picture, what was added, the sum, and what it imitates."""
    subject = one.subject
    examples = [example for example in one.examples if example.eps == eps]
    pixels = subject.pixels[one.shown].cpu().numpy()
    true = int(subject.labels[one.shown])
    gain = 127 // eps
    with drawing(path, 1.9 * 4, 2.0 * len(examples), photographs=True) as figure:
        grid = photograph_grid(figure, len(examples), 4, 1)
        for row, example in zip(grid, examples, strict=True):
            shown = example.pixels.numpy()
            added = 128 + gain * (shown.astype(np.int16) - pixels)
            _picture(row[0], pixels, classes[true])
            _picture(
                row[1], added.clip(0, 255).astype(np.uint8), f"{example.attack} within {eps}/255, × {gain}", "black"
            )
            _answer(row[2], shown, classes[example.predicted], example.predicted == true)
            if example.target is not None:
                label = classes[int(subject.labels[example.target])]
                _picture(row[3], subject.pixels[example.target].cpu().numpy(), f"imitates: {label}")


def _picture(axes: Axes, pixels: npt.NDArray[np.uint8], title: str, colour: str = "black") -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, color=colour, fontsize=8)


def _answer(axes: Axes, pixels: npt.NDArray[np.uint8], title: str, right: bool) -> None:
    # Not by colour alone: few of the file's colours are left for the letters.
    _picture(axes, pixels, title if right else f"✗ {title}", GREEN if right else RED)
