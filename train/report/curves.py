"""How training went, and how the strategies compare, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.train.loop import EpochRecord
from edgewright.train.report.style import BLUE, GREEN, GREY, ORANGE, PALETTE, RED, drawing, legible, percent_axis
from edgewright.train.stages import StageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["epoch_times", "plot_compare", "plot_curves"]

_STRATEGY_COLOURS = {"head": BLUE, "partial": ORANGE, "full": GREEN, "scratch": GREY, "auto": RED}
_SHADES = ("#EAF2F8", "#F7F7F7")


def plot_curves(records: Sequence[EpochRecord], stages: Sequence[StageRecord], strategy: str, path: Path) -> None:
    """Loss, top-1 and learning rate: per L2 penalty for a head, over time for stages, per epoch for the rest."""
    if strategy == "head":
        _plot_penalties(records, path)
        return
    with drawing(path, 9.2, 3.4) as figure:
        axes_of = figure.subplots(1, 3, width_ratios=(3, 4, 2))
        loss_axes, top1_axes, rate_axes = axes_of
        steps = epoch_times(records, stages) if stages else [float(number + 1) for number in range(len(records))]
        # A head that was solved for has penalties instead of epochs: they belong on no axis of time.
        shown = [(step, record) for step, record in zip(steps, records, strict=True) if step is not None]
        x = [step for step, _ in shown]
        marker = "o" if len(x) <= 40 else None
        loss_axes.plot(x, [record.train_loss for _, record in shown], color=GREY, marker=marker, markersize=3)
        loss_axes.set_title("training loss")
        rate_axes.plot(x, [record.lr for _, record in shown], color=GREY, marker=marker, markersize=2, linewidth=1)
        rate_axes.set_title("learning rate")
        rate_axes.set_ylim(bottom=0)
        # Plain numbers: matplotlib would write the common power of ten in a corner, in its own formula language.
        rate_axes.yaxis.set_major_formatter("{x:g}")
        rate_axes.locator_params(axis="y", nbins=4)
        rate_axes.tick_params(labelsize=7)
        train = [record.train_top1 for _, record in shown]
        top1_axes.plot(x, train, color=GREY, marker=marker, markersize=3, label="training")
        if stages:
            ends = [(stage.seconds, stage.val_top1) for stage in stages]
            points = sorted({*ends, *((step, record.val_top1) for step, record in shown)})
        else:
            points = [(step, record.val_top1) for step, record in shown]
        top1_axes.plot(*zip(*points, strict=True), color=BLUE, marker=marker, markersize=3, label="validation")
        best = max(points, key=lambda point: (point[1], -point[0]))
        top1_axes.plot(*best, "*", color=RED, markersize=11, label=f"best, {best[1]:.1%}")
        top1_axes.set_title("top-1")
        percent_axis(top1_axes.yaxis)
        top1_axes.legend(fontsize=8, loc="lower right")
        for axes in axes_of:
            axes.grid()
            axes.set_xlabel("seconds" if stages else "epoch")
            if stages:
                _shade(axes, stages, named=axes is top1_axes)
            elif len(records) < 5:
                axes.set_xticks(x)
            else:
                axes.xaxis.get_major_locator().set_params(integer=True)


def _plot_penalties(records: Sequence[EpochRecord], path: Path) -> None:
    # For a head, `lr` holds the penalty.
    places = range(len(records))
    with drawing(path, 9.2, 3.2) as figure:
        loss_axes, top1_axes = figure.subplots(1, 2)
        loss_axes.plot(places, [record.train_loss for record in records], color=GREY, marker="o")
        loss_axes.set_title("training loss")
        train = [record.train_top1 for record in records]
        top1_axes.plot(places, train, color=GREY, marker="o", label="training")
        top1_axes.plot(places, [record.val_top1 for record in records], color=BLUE, marker="o", label="validation")
        best = max(places, key=lambda place: (records[place].val_top1, -place))
        label = f"best, {records[best].val_top1:.1%}"
        top1_axes.plot(best, records[best].val_top1, "*", color=RED, markersize=12, label=label)
        top1_axes.set_title("top-1")
        percent_axis(top1_axes.yaxis)
        top1_axes.legend(fontsize=8)
        for axes in (loss_axes, top1_axes):
            axes.set_xticks(places, [f"{record.lr:g}" for record in records])
            axes.set_xlabel("L2 penalty (weaker to the right)")
            axes.grid()


def epoch_times(records: Sequence[EpochRecord], stages: Sequence[StageRecord]) -> list[float | None]:
    """Seconds since the run began at the end of each epoch; None for one that belongs to no stage or took no time.

    A stage's epochs are its last seconds: before them it computed the activations that they use.
    """
    ends = {stage.name: stage.seconds for stage in stages}
    times: list[float | None] = [None] * len(records)
    for number in range(len(records) - 1, -1, -1):
        record = records[number]
        if record.stage in ends and record.seconds > 0:
            times[number] = ends[record.stage]
            ends[record.stage] -= record.seconds
    return times


def _shade(axes: Axes, stages: Sequence[StageRecord], *, named: bool) -> None:
    start = 0.0
    axes.set_xlim(0, stages[-1].seconds * 1.02)
    for number, (stage, name) in enumerate(zip(stages, legible([stage.name for stage in stages]), strict=True)):
        axes.axvspan(start, stage.seconds, color=_SHADES[number % 2], zorder=0, linewidth=0)
        if named:
            label = name if stage.kept else f"{name} (not kept)"
            axes.text(
                (start + stage.seconds) / 2,
                0.98,
                label,
                transform=axes.get_xaxis_transform(),
                rotation=90 if stage.seconds - start < 0.3 * stages[-1].seconds else 0,
                ha="center",
                va="top",
                fontsize=7.5,
                color="#444444",
            )
        start = stage.seconds


def plot_compare(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Validation top-1 against time per strategy, with the test top-1 where it was measured.

    Args:
        rows: `{"strategy", "val_top1", "test_top1", "seconds", "points": [(seconds, val_top1), …]}`; `test_top1`
            may be None and `points` empty.
        path: The PNG.
    """
    with drawing(path, 9.2, 4.2) as figure:
        axes = figure.subplots()
        names = legible([str(row["strategy"]) for row in rows])
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            colour = _STRATEGY_COLOURS.get(row["strategy"], PALETTE[number % len(PALETTE)])
            points = sorted({*map(tuple, row["points"]), (row["seconds"], row["val_top1"])})
            # Of an ended run only the best epoch is kept, so the line shows the best so far.
            best, line = 0.0, []
            for seconds, top1 in points:
                best = max(best, top1)
                line.append((seconds, best))
            axes.plot(*zip(*line, strict=True), color=colour, marker="o", markersize=3.5, drawstyle="steps-post")
            label = f"{name}  {row['val_top1']:.1%}"
            if row["test_top1"] is not None:
                axes.plot(row["seconds"], row["test_top1"], "D", color=colour, markersize=7, markerfacecolor="white")
                label += f", test {row['test_top1']:.1%}"
            axes.plot([], [], color=colour, marker="o", markersize=3.5, label=label)
        if any(row["test_top1"] is not None for row in rows):
            axes.plot([], [], "D", color="#444444", markerfacecolor="white", label="on the test split")
        axes.set_xscale("log")
        ticks = _round_seconds(min(row["seconds"] for row in rows), max(row["seconds"] for row in rows))
        axes.set_xticks(ticks, [f"{tick:g} s" if tick < 60 else f"{tick / 60:g} min" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("time (logarithmic)")
        percent_axis(axes.yaxis)
        axes.set_ylabel("best validation top-1 so far")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _round_seconds(smallest: float, largest: float) -> list[float]:
    steps = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000, 86400)
    inside = [float(step) for step in steps if smallest / 2 <= step <= largest * 1.5]
    return inside or [smallest]
