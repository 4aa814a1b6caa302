"""Which artefact, with how many threads, is best on this device: measured here, with a reason why each other one lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgewright.benchmarks.closed_loop import measure_closed_loop, report_of
from edgewright.benchmarks.reports import Interval, LatencyReport
from edgewright.benchmarks.subjects import Configuration, has_threads, open_subjects
from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.manifest import Artefact

__all__ = ["Accuracy", "Candidate", "Limits", "Tuning", "choose", "is_slower", "measure_candidates"]

_FIRST_SHARE = 0.4
"""Of the time, for all candidates; the rest is for those that may still win."""
_MAY_WIN = 1.25


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep.

    Attributes:
        max_drop: Points of top-1 that it may lose against the trained model.
        target_ms: If given, the most accurate candidate that answers half of its requests within it wins, not the fastest.
        max_memory_mb: Resident memory of a process that does nothing else.
    """

    max_drop: float
    target_ms: float | None = None
    max_memory_mb: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, 0 to 1, and points lost against the trained model; None where there were no labels."""

    top1: float | None
    drop: float | None


@dataclass(frozen=True)
class Candidate:
    """A way to run the model, what was found of it, and why it lost; "" for the one that is chosen.

    `p50_ms` and its interval are None for what was not worth measuring.
    """

    artefact: str
    backend: str
    precision: str
    threads: int | None
    p50_ms: float | None
    interval: Interval | None
    top1: float | None
    drop: float | None
    size_bytes: int
    memory_peak_mb: float | None
    rejected: str


@dataclass(frozen=True)
class Tuning:
    """All candidates, and the one that is best; None if none keeps the limits."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]


def measure_candidates(
    bundle: Bundle,
    artefacts: Sequence[Artefact],
    accuracies: Mapping[str, Accuracy],
    memory_mb: Mapping[str, float],
    threads: Sequence[int],
    limits: Limits,
    *,
    settings: EngineSettings,
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """Measure what keeps the limits of accuracy and memory, a single picture at a time, in turns.

    Args:
        bundle: Whose golden pictures are used.
        artefacts: Those that run here.
        accuracies: By artefact.
        memory_mb: By artefact, for those known.
        threads: Numbers of threads to try.
        limits: What must be kept.
        settings: The device.
        seconds: For all.
        progress: Told how many turns are done, of how many, for each of the two rounds of measuring.
    """
    wanted = [
        Configuration(artefact, count, 1, main=True)
        for artefact in artefacts
        for count in (sorted(set(threads)) if has_threads(artefact, settings.device) else [None])
    ]
    losers = {}
    for each in wanted:
        if reason := _over_limits(each.artefact, accuracies, memory_mb, limits):
            losers[each] = reason
    fit = [each for each in wanted if each not in losers]
    reports: dict[Configuration, LatencyReport] = {}
    if fit:
        with open_subjects(bundle, fit, settings) as subjects:
            first = measure_closed_loop(subjects, seconds=_FIRST_SHARE * seconds, progress=progress)
            reports = {one.subject.configuration: report_of(one, "") for one in first}
            fastest = min(report.p50_ms for report in reports.values())
            within = fastest if limits.target_ms is None else max(fastest, limits.target_ms)
            final = [one for one in subjects if reports[one.configuration].p50_ms <= _MAY_WIN * within]
            # Figures of two rounds are not compared: between them the machine may have changed.
            for one in subjects:
                if one not in final:
                    p50_ms = reports[one.configuration].p50_ms
                    losers[one.configuration] = (
                        f"{p50_ms / fastest:.2f} times as slow as the fastest, in a first round"
                        if limits.target_ms is None
                        else f"takes {p50_ms:.2f} ms, in a first round; {limits.target_ms:g} are allowed"
                    )
            again = measure_closed_loop(final, seconds=(1 - _FIRST_SHARE) * seconds, progress=progress)
            reports |= {one.subject.configuration: report_of(one, "") for one in again}
    return [_candidate(each, reports.get(each), accuracies, memory_mb, losers.get(each, "")) for each in wanted]


def _over_limits(
    artefact: Artefact, accuracies: Mapping[str, Accuracy], memory_mb: Mapping[str, float], limits: Limits
) -> str:
    drop = accuracies[artefact.name].drop
    if drop is not None and drop > limits.max_drop:
        return f"loses {drop:.2f} points of top-1; {limits.max_drop:g} are allowed"
    memory = memory_mb.get(artefact.name)
    if limits.max_memory_mb is not None and memory is not None and memory > limits.max_memory_mb:
        return f"takes {memory:.0f} MB of memory; {limits.max_memory_mb:g} are allowed"
    return ""


def _candidate(
    each: Configuration,
    report: LatencyReport | None,
    accuracies: Mapping[str, Accuracy],
    memory_mb: Mapping[str, float],
    rejected: str,
) -> Candidate:
    accuracy = accuracies[each.artefact.name]
    return Candidate(
        artefact=each.artefact.name,
        backend=each.artefact.backend,
        precision=each.artefact.precision,
        threads=each.threads,
        p50_ms=None if report is None else report.p50_ms,
        interval=None if report is None else report.intervals.get("p50"),
        top1=accuracy.top1,
        drop=accuracy.drop,
        size_bytes=each.artefact.size_bytes,
        memory_peak_mb=memory_mb.get(each.artefact.name),
        rejected=rejected,
    )


def is_slower(one: Candidate, other: Candidate) -> bool:
    """Whether `one` takes longer than `other` beyond noise: the interval of the difference does not reach 0."""
    assert one.p50_ms is not None
    assert other.p50_ms is not None
    difference = one.p50_ms - other.p50_ms
    if one.interval is None or other.interval is None:
        return difference > 0
    return difference > math.hypot(one.p50_ms - one.interval.low_ms, other.interval.high_ms - other.p50_ms)


def choose(candidates: Sequence[Candidate], limits: Limits) -> Tuning:
    """The best of `candidates`, with the reason why each other one lost.

    Without a target the fastest; of those that are not slower beyond noise the one that loses least accuracy, then a float one
    (what INT8 cannot show to be faster it is not worth), then the one with the fewest threads, then the smallest. With a
    target, of those that keep it with their interval the one that loses least accuracy, then the fastest. To be right more
    often than the trained model counts for nothing: that is chance.
    """
    open_ones = [one for one in candidates if not one.rejected and one.p50_ms is not None]
    if limits.target_ms is not None:
        fast = [one for one in open_ones if _highest(one) <= limits.target_ms]
        best = min(fast, key=lambda one: (_loss(one), one.p50_ms), default=None)
    else:
        quickest = min(open_ones, key=lambda one: one.p50_ms or math.inf, default=None)
        equals = [one for one in open_ones if quickest is not None and not is_slower(one, quickest)]
        best = min(
            equals,
            key=lambda one: (_loss(one), one.precision == "int8", one.threads or 0, one.size_bytes, one.p50_ms),
            default=None,
        )
    told = tuple(
        replace(one, rejected=one.rejected or ("" if one is best else _why_not(one, best, limits)))
        for one in candidates
    )
    return Tuning(next((one for one in told if not one.rejected), None), told)


def _loss(one: Candidate) -> float:
    return max(0.0, one.drop or 0.0)


def _highest(one: Candidate) -> float:
    return one.interval.high_ms if one.interval is not None else one.p50_ms or math.inf


def _why_not(one: Candidate, best: Candidate | None, limits: Limits) -> str:
    assert one.p50_ms is not None
    if limits.target_ms is not None and _highest(one) > limits.target_ms:
        return f"takes {one.p50_ms:.2f} ms (up to {_highest(one):.2f}); {limits.target_ms:g} are allowed"
    assert best is not None
    assert best.p50_ms is not None
    if is_slower(one, best):
        return f"{one.p50_ms / best.p50_ms:.2f} times as slow as the one chosen"
    if _loss(one) > _loss(best):
        enough = "fast enough" if limits.target_ms is not None else "not faster than the one chosen beyond noise"
        return f"{enough}, but loses more accuracy"
    if one.precision == "int8" and best.precision != "int8":
        return "INT8, and not faster than the one chosen beyond noise"
    return "not faster than the one chosen beyond noise, and no more accurate"
