"""Where the time goes and how it scatters: one strip per way to run the model, the fastest at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgewright.benchmarks.document import row_names
from edgewright.benchmarks.report.content import Group
from edgewright.benchmarks.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    drawing,
    legible,
    time_axis,
)
from edgewright.benchmarks.report.words import figure
from edgewright.benchmarks.reports import STAGES, LatencyReport, SampleSet

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

__all__ = ["MOST_ROWS", "plot_latency", "plot_stages"]

MOST_ROWS = 40
"""Of one picture; the slower ones are in the table."""

_ROW_HEIGHT, _FRAME_HEIGHT = 0.24, 0.75
_COLOURS = dict(zip(STAGES, (ORANGE, SKY, GREY, BLUE, PURPLE, GREEN), strict=True))
_STAGE_NAMES = {"copy_in": "copy in", "copy_out": "copy out"}
_CLOSER_THAN = 0.005


def plot_latency(reports: Sequence[LatencyReport], group: Group, samples: Mapping[int, SampleSet]) -> Picture:
    """How request times of each row of `group` scatter, to the slowest one; percentiles where there are no samples.

    Args:
        reports: All of the document.
        group: Which of them.
        samples: By index into `reports`.
    """
    rows = group.rows[:MOST_ROWS]
    spans = [_span(reports[index], samples.get(index)) for index in rows]
    with drawing(f"latency-{group.slug}", _FRAME_HEIGHT + 0.25 + _ROW_HEIGHT * len(rows)) as canvas:
        axes = _strips(canvas.figure.subplots(), [reports[index] for index in rows])
        time_axis(axes, min(low for low, _ in spans), max(high for _, high in spans), label="request")
        for place, index in enumerate(rows):
            found = samples.get(index)
            if found is not None and len(found.total_ms):
                _draw_samples(axes, place, found.total_ms)
            else:
                _draw_percentiles(axes, place, reports[index])
        _latency_legend(axes, any_samples=any(index in samples for index in rows))
    how = "from the fastest request to the slowest; dots are all that took longer than the 99th percentile"
    caption = (
        f"Times of requests, {group.title}: {how}. Nothing is left out."
        if samples
        else (f"Percentiles of request times, {group.title}.")
    )
    return canvas.picture(f"latency-{group.slug}", f"latency, {group.title}", caption + _left_out(group))


def _left_out(group: Group) -> str:
    more = len(group.rows) - MOST_ROWS
    return f" The {MOST_ROWS} fastest; {more} more are in the table." if more > 0 else ""


def _span(report: LatencyReport, samples: SampleSet | None) -> tuple[float, float]:
    if samples is not None and len(samples.total_ms):
        positive = samples.total_ms[samples.total_ms > 0]
        if len(positive):
            return float(positive.min()), float(samples.total_ms.max())
    return report.p50_ms, max(filter(None, (report.p50_ms, report.p90_ms, report.p95_ms, report.p99_ms)))


def _strips(axes: Axes, reports: Sequence[LatencyReport]) -> Axes:
    """Axes with a named row for each of `reports`, the first one at the top."""
    axes.set_yticks(range(len(reports)), legible(row_names(reports)))
    axes.set_ylim(len(reports) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return axes


def _draw_samples(axes: Axes, place: int, times: npt.NDArray[np.float64]) -> None:
    import numpy as np

    low, quarter, median, three, ninety, most, high = np.percentile(
        times, (0, 25, 50, 75, 90, 99, 100), method="inverted_cdf"
    ).tolist()
    axes.plot([low, high], [place] * 2, color=SKY, linewidth=1.4, solid_capstyle="butt", zorder=2)
    axes.barh(place, three - quarter, left=quarter, height=0.62, color=BLUE, zorder=3)
    axes.plot([median] * 2, [place - 0.31, place + 0.31], color=PAGE, linewidth=1.8, solid_capstyle="butt", zorder=4)
    for value, colour in ((ninety, ORANGE), (most, RED)):
        axes.plot([value] * 2, [place - 0.24, place + 0.24], color=colour, linewidth=1.8, zorder=5)
    tail = np.sort(times[times > most])
    if len(tail):
        # Dots that would lie on one another are one: a million requests must not make a page of a million dots.
        apart = np.concatenate([[True], np.diff(np.floor(np.log(np.maximum(tail, 1e-9)) / _CLOSER_THAN)) > 0])
        shown = np.unique(np.concatenate([tail[apart], [high]]))
        axes.plot(shown, [place] * len(shown), "o", color=RED, markersize=2.6, markeredgewidth=0, zorder=4)


def _draw_percentiles(axes: Axes, place: int, report: LatencyReport) -> None:
    known = [(report.p90_ms, ORANGE), (report.p99_ms, RED)]
    furthest = max([report.p50_ms, *(value for value, _ in known if value is not None)])
    axes.plot([report.p50_ms, furthest], [place] * 2, color=SKY, linewidth=1.4, solid_capstyle="butt", zorder=2)
    axes.plot(report.p50_ms, place, "o", color=BLUE, markersize=6, zorder=3)
    for value, colour in known:
        if value is not None:
            axes.plot([value] * 2, [place - 0.24, place + 0.24], color=colour, linewidth=1.8, zorder=5)


def _latency_legend(axes: Axes, *, any_samples: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    tick = {"marker": "|", "linestyle": "", "markersize": 9, "markeredgewidth": 1.8}
    entries: list[tuple[Line2D | Patch, str]] = (
        [(Patch(color=BLUE), "the middle half, median in it")]
        if any_samples
        else [(Line2D([], [], marker="o", linestyle="", color=BLUE), "p50")]
    )
    entries += [(Line2D([], [], color=ORANGE, **tick), "p90"), (Line2D([], [], color=RED, **tick), "p99")]  # type: ignore[arg-type]
    if any_samples:
        entries.append((Line2D([], [], marker="o", linestyle="", color=RED, markersize=3), "the slowest 1%"))
    _legend_above(axes, entries)


def _legend_above(axes: Axes, entries: Sequence[tuple[Line2D | Patch, str]]) -> None:
    whole = axes.get_figure(root=True)
    assert whole is not None
    handles, names = zip(*entries, strict=True)
    whole.legend(handles, names, loc="outside upper center", ncols=len(entries), fontsize=8, handletextpad=0.5)


def plot_stages(reports: Sequence[LatencyReport], group: Group) -> Picture | None:
    """The median time of every stage, one after the other; None if no row of `group` has stages."""
    from matplotlib.patches import Patch

    known = [index for index in group.rows if any(reports[index].stages_ms.values())]
    # The engine's own order need not be that of the whole way.
    rows = known[:MOST_ROWS]
    if not rows:
        return None
    sums = [sum(reports[index].stages_ms.values()) for index in rows]
    with drawing(f"stages-{group.slug}", _FRAME_HEIGHT + 0.25 + _ROW_HEIGHT * len(rows)) as canvas:
        axes = _strips(canvas.figure.subplots(), [reports[index] for index in rows])
        axes.set_xlim(0, 1.1 * max(sums))
        axes.set_xlabel("medians of the stages, ms per request")
        for place, (index, whole) in enumerate(zip(rows, sums, strict=True)):
            _draw_stages(axes, place, reports[index].stages_ms, max(sums))
            axes.annotate(
                figure(whole), (whole, place), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK
            )
        present = [stage for stage in STAGES if any(reports[index].stages_ms.get(stage) for index in rows)]
        _legend_above(axes, [(Patch(color=_COLOURS[stage]), _STAGE_NAMES.get(stage, stage)) for stage in present])
    return canvas.picture(
        f"stages-{group.slug}",
        f"stages, {group.title}",
        f"Where the time goes, {group.title}: the median of each stage. Medians do not add up to the median of the whole "
        f"exactly.{_left_out(group)}",
    )


def _draw_stages(axes: Axes, place: int, stages: Mapping[str, float], longest: float) -> None:
    left = 0.0
    for stage in STAGES:
        time = stages.get(stage, 0.0)
        axes.barh(place, time, left=left, height=0.72, color=_COLOURS[stage], linewidth=0)
        value = figure(time, 2)
        # A value is written where it fits: letters take about a hundredth of the axis each.
        if time > longest * (0.012 * len(value) + 0.012):
            dark = stage in ("inference", "copy_in")
            axes.text(
                left + time / 2, place, value, ha="center", va="center", fontsize=7.5,
                color="#ffffff" if dark else "#000000",
            )  # fmt: skip
        left += time
