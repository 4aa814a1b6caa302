"""Two measurements beside each other: what became slower, and what only looks so."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.benchmarks.document import BenchDocument
    from edgewright.benchmarks.reports import Interval, LatencyReport

__all__ = ["PERCENTILES", "Comparison", "Difference", "compare_documents"]

PERCENTILES = ("p50", "p90", "p99")

_MACHINE = ("cpu", "cpu_features", "cores", "memory_gib", "machine")
_SOFTWARE = ("system", "python", "versions")
_SETTINGS = ("governor", "power_mode")


@dataclass(frozen=True)
class Difference:
    """One percentile of one way to run the model, in both measurements.

    Attributes:
        name: The row, as people see it.
        artefact: With the next five, what both rows have in common.
        backend: The engine.
        threads: None where that means nothing.
        batch: Pictures in one inference.
        scenario: See :data:`~edgewright.benchmarks.reports.Scenario`.
        device: What the engine says that it ran on.
        percentile: "p50", "p90" or "p99".
        a_ms: The earlier figure.
        b_ms: The later one.
        ratio: b / a; above 1 is slower.
        difference_ms: b - a.
        low_ms: Where the true difference begins, with 95 % confidence; None if one of them has no interval.
        high_ms: Where it ends.
        significant: Whether that leaves no room for no difference at all.
    """

    name: str
    artefact: str
    backend: str
    threads: int | None
    batch: int
    scenario: str
    device: str
    percentile: str
    a_ms: float
    b_ms: float
    ratio: float
    difference_ms: float
    low_ms: float | None
    high_ms: float | None
    significant: bool


@dataclass(frozen=True)
class Comparison:
    """Two measurements beside each other.

    Attributes:
        differences: A row for each percentile that both have, in the order of the earlier measurement.
        only_a: Names of rows that only the earlier one has.
        only_b: Those that only the later one has.
        notes: Why they may not be comparable.
    """

    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]

    def slower(self, tolerance: float = 0.0) -> list[Difference]:
        """Medians that are significantly slower, and by more than `tolerance`, a share."""
        return [each for each in self._medians() if each.difference_ms > 0 and each.ratio > 1 + tolerance]

    def faster(self) -> list[Difference]:
        """Medians that are significantly faster."""
        return [each for each in self._medians() if each.difference_ms < 0]

    def _medians(self) -> list[Difference]:
        return [each for each in self.differences if each.percentile == "p50" and each.significant]

    def as_json(self) -> dict[str, Any]:
        """The `--json` document."""
        return {
            "slower": [asdict(each) for each in self.slower()],
            "faster": [asdict(each) for each in self.faster()],
            "differences": [asdict(each) for each in self.differences],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "notes": list(self.notes),
        }


def compare_documents(a: BenchDocument, b: BenchDocument) -> Comparison:
    """Put the rows of `b` beside those of `a`, the earlier measurement.

    Rows belong together if artefact, backend, threads, batch, scenario and device are the same, and in an open loop the
    rate as well; should several be the same in all of these, the first belongs to the first.
    """
    from edgewright.benchmarks.document import row_names

    ours, theirs = _keyed(a.reports), _keyed(b.reports)
    # All rows of both together, so that a name says whatever tells any two of them apart.
    every = {**theirs, **ours}
    names = dict(zip(every, row_names(list(every.values())), strict=True))
    both = [key for key in ours if key in theirs]
    return Comparison(
        differences=tuple(each for key in both for each in _differences(names[key], ours[key], theirs[key])),
        only_a=tuple(names[key] for key in ours if key not in theirs),
        only_b=tuple(names[key] for key in theirs if key not in ours),
        notes=tuple(_notes(a, b)),
    )


def _offered(report: LatencyReport) -> float | None:
    return report.details.get("offered_per_s")


def _keyed(reports: Sequence[LatencyReport]) -> dict[tuple[object, int], LatencyReport]:
    """Rows by all that they are, and how many such there were before."""
    seen: Counter[object] = Counter()
    keyed: dict[tuple[object, int], LatencyReport] = {}
    for each in reports:
        key = (each.artefact, each.backend, each.threads, each.batch, each.scenario, each.device, _offered(each))
        keyed[key, seen[key]] = each
        seen[key] += 1
    return keyed


def _differences(name: str, a: LatencyReport, b: LatencyReport) -> Iterator[Difference]:
    for percentile in PERCENTILES:
        a_ms, b_ms = getattr(a, f"{percentile}_ms"), getattr(b, f"{percentile}_ms")
        if a_ms is None or b_ms is None:
            continue
        limits = _limits(a_ms, a.intervals.get(percentile), b_ms, b.intervals.get(percentile))
        low_ms, high_ms = limits or (None, None)
        yield Difference(
            name=name,
            artefact=a.artefact,
            backend=a.backend,
            threads=a.threads,
            batch=a.batch,
            scenario=a.scenario,
            device=a.device,
            percentile=percentile,
            a_ms=a_ms,
            b_ms=b_ms,
            ratio=b_ms / a_ms,
            difference_ms=b_ms - a_ms,
            low_ms=low_ms,
            high_ms=high_ms,
            significant=limits is not None and (limits[0] > 0 or limits[1] < 0),
        )


def _limits(a_ms: float, a: Interval | None, b_ms: float, b: Interval | None) -> tuple[float, float] | None:
    """Limits of b - a. The measurements are independent of each other, so half-widths add up as squares do, each side for
    itself: the difference is smallest where b is at its lower limit and a at its upper one (Newcombe's "square-and-add",
    Statistics in Medicine 17, 1998).
    """
    if a is None or b is None:
        return None
    below = math.hypot(b_ms - b.low_ms, a.high_ms - a_ms)
    above = math.hypot(b.high_ms - b_ms, a_ms - a.low_ms)
    return b_ms - a_ms - below, b_ms - a_ms + above


def _notes(a: BenchDocument, b: BenchDocument) -> Iterator[str]:
    if a.bundle_sha256 != b.bundle_sha256:
        yield f"not the same bundle: {a.bundle} {a.bundle_sha256[:12]}, then {b.bundle} {b.bundle_sha256[:12]}"
    for what, keys, ours, theirs in (
        ("machine", _MACHINE, a.device, b.device),
        ("software", _SOFTWARE, a.device, b.device),
        ("settings", _SETTINGS, a.conditions, b.conditions),
    ):
        if changes := list(_changes(keys, ours, theirs)):
            yield f"not the same {what}: {'; '.join(changes)}"
    for when, document in (("earlier", a), ("later", b)):
        for finding in document.findings or ():
            yield f"the {when} measurement is doubtful: {finding}"


def _changes(keys: Sequence[str], a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for key in keys:
        ours, theirs = a.get(key), b.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _changes(sorted({*ours, *theirs}), ours, theirs)
        elif ours != theirs:
            yield f"{key.replace('_', ' ')} {_said(ours)}, then {_said(theirs)}"


def _said(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
