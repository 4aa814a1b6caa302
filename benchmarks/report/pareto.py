"""Accuracy against latency: which ways to run the model are worth a thought, each with its name beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewright.benchmarks.document import row_names
from edgewright.benchmarks.report.content import pareto_front
from edgewright.benchmarks.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAGE,
    PURPLE,
    QUIET,
    SKY,
    Picture,
    drawing,
    legible,
    time_axis,
)
from edgewright.benchmarks.report.labels import Box, Place, find_places
from edgewright.benchmarks.reports import LatencyReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_pareto"]

_COLOURS = {"fp32": BLUE, "fp16": SKY, "bf16": PURPLE, "int8": ORANGE}
_MARKERS = {"onnxruntime": "o", "openvino": "s", "tensorrt": "^"}
_HEIGHT = 4.3
_LABELLED = 12
"""Points; with more, only those on the front have names."""
_LETTERS = 8


def plot_pareto(reports: Sequence[LatencyReport], group: str) -> Picture | None:
    """Top-1 against the median, with the Pareto front; None if no row has an accuracy.

    Args:
        reports: Rows that can be compared: one scenario, one batch.
        group: What they have in common.
    """
    shown = [report for report in reports if report.top1 is not None]
    if not shown:
        return None
    front = pareto_front(shown)
    with drawing("pareto", _HEIGHT) as canvas:
        axes = canvas.figure.subplots()
        axes.grid()
        _scale(axes, shown)
        _draw_front(axes, [shown[index] for index in front])
        for index, report in enumerate(shown):
            _draw_point(axes, report, on_front=index in front)
        _legend(axes, shown)
        all_named = _place_names(axes, shown, front)
    return canvas.picture(
        "pareto",
        f"accuracy against latency, {group}",
        f"Accuracy against the median latency ({group}); up and to the left is better. The line is the Pareto front: what "
        "stands below it is no more accurate than something that is as fast. Bars are 95% intervals."
        + ("" if all_named else " Points without a name are in the table."),
    )


def _scale(axes: Axes, shown: Sequence[LatencyReport]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    times = [time for report in shown for time in _limits(report)]
    time_axis(axes, min(times), max(times), label="p50", from_zero=False)
    levels = [report.top1 or 0.0 for report in shown]
    # A tenth of a point at least: where all are the same, the axis must not show differences of nothing.
    margin = max(0.14 * (max(levels) - min(levels)), 0.001)
    axes.set_ylim(min(levels) - margin, max(levels) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.set_ylabel("top-1 accuracy")


def _limits(report: LatencyReport) -> tuple[float, float]:
    """The interval of the median; it has the median in it, and what is not positive fits on no logarithmic axis."""
    found = report.intervals.get("p50")
    if found is None or found.low_ms <= 0:
        return report.p50_ms, report.p50_ms
    return min(found.low_ms, report.p50_ms), max(found.high_ms, report.p50_ms)


def _draw_front(axes: Axes, front: Sequence[LatencyReport]) -> None:
    times = [report.p50_ms for report in front]
    levels = [report.top1 or 0.0 for report in front]
    # What is to be had for each time: it stays until the next point is reached, and beyond the last one.
    axes.plot(
        [times[0], *times, axes.get_xlim()[1]],
        [axes.get_ylim()[0], *levels, levels[-1]],
        drawstyle="steps-post",
        color=GREEN,
        linewidth=1.6,
        zorder=2,
    )


def _draw_point(axes: Axes, report: LatencyReport, *, on_front: bool) -> None:
    low, high = _limits(report)
    colour = _COLOURS.get(report.precision, GREY)
    level = report.top1 or 0.0
    axes.plot([low, high], [level] * 2, color=colour, linewidth=1.2, zorder=3)
    axes.plot(
        report.p50_ms,
        level,
        _MARKERS.get(report.backend, "D"),
        color=colour,
        markerfacecolor=colour if on_front else PAGE,
        markersize=7.5 if on_front else 6,
        zorder=4,
    )


def _legend(axes: Axes, shown: Sequence[LatencyReport]) -> None:
    from matplotlib.lines import Line2D

    entries: list[tuple[Line2D, str]] = [(Line2D([], [], color=GREEN, linewidth=1.6), "Pareto front")]
    precisions = {report.precision for report in shown}
    for precision in [*(name for name in _COLOURS if name in precisions), *sorted(precisions - set(_COLOURS))]:
        marker = Line2D([], [], marker="o", linestyle="", color=_COLOURS.get(precision, GREY))
        entries.append((marker, legible([precision], 12)[0]))
    backends = list(dict.fromkeys(report.backend for report in shown))
    for backend in backends if len(backends) > 1 else []:
        marker = Line2D([], [], marker=_MARKERS.get(backend, "D"), linestyle="", color=QUIET, markerfacecolor=PAGE)
        entries.append((marker, legible([backend], 16)[0]))
    figure = axes.get_figure(root=True)
    assert figure is not None
    handles, names = zip(*entries, strict=True)
    figure.legend(
        handles,
        names,
        loc="outside upper center",
        ncols=min(7, len(entries)),
        fontsize=8,
        handletextpad=0.4,
        columnspacing=1.3,
    )


def _place_names(axes: Axes, shown: Sequence[LatencyReport], front: Sequence[int]) -> bool:
    """Write names beside points, the front's first, where there is a place; returns whether there was one for each."""
    names = legible(row_names(shown))
    others = [index for index in range(len(shown)) if index not in front] if len(shown) <= _LABELLED else []
    order = [*front, *others]
    sizes = [_size(axes, names[index]) for index in order]
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    # Nothing moves from here on: places are found in the coordinates of the finished picture, whose unit is a point.
    figure.set_layout_engine("none")
    inside = Box(*map(float, axes.get_window_extent().extents))
    marks: list[tuple[float, float]] = axes.transData.transform([_point(report) for report in shown]).tolist()
    obstacles = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    for report, (_, y) in zip(shown, marks, strict=True):
        left, right = (axes.transData.transform((time, report.top1 or 0.0))[0] for time in _limits(report))
        obstacles.append(Box(left, y - 1.5, right, y + 1.5))
    points = [marks[index] for index in order]
    places = find_places(points, sizes, obstacles, _steps(points[: len(front)], inside), inside, important=len(front))
    for index, place in zip(order, places, strict=True):
        if place is not None:
            _write(axes, shown[index], names[index], place, INK if index in front else QUIET)
    return len(places) == len(shown) and None not in places


def _point(report: LatencyReport) -> tuple[float, float]:
    return report.p50_ms, report.top1 or 0.0


def _size(axes: Axes, name: str) -> tuple[float, float]:
    text = axes.text(0, 0, name, fontsize=_LETTERS)
    box = text.get_window_extent()
    text.remove()
    return float(box.width), float(box.height)


def _steps(front: Sequence[tuple[float, float]], inside: Box) -> list[Box]:
    """Thin boxes along the front's line."""
    boxes = []
    below = inside.y0
    for index, (x, y) in enumerate(front):
        end = front[index + 1][0] if index + 1 < len(front) else inside.x1
        boxes += [Box(x - 1, below, x + 1, y), Box(x, y - 1, end, y + 1)]
        below = y
    return boxes


def _write(axes: Axes, report: LatencyReport, name: str, place: Place, colour: str) -> None:
    from matplotlib import patheffects

    line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
    text = axes.annotate(
        name,
        _point(report),
        place.offset,
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=_LETTERS,
        color=colour,
        arrowprops=line if place.far else None,
        zorder=5,
    )
    text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground=PAGE)])
