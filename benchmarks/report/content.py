"""What a report says, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgewright.benchmarks.document import BenchDocument, row_names
from edgewright.benchmarks.report.words import NONE, SCENARIOS, figure, p50_text, spoken
from edgewright.benchmarks.reports import LatencyReport, LayerTime

__all__ = [
    "COLUMNS",
    "Content",
    "Fact",
    "Group",
    "Headline",
    "LayerTable",
    "Row",
    "build_content",
    "grouped",
    "pareto_front",
]

COLUMNS = (
    "artefact",
    "backend",
    "precision",
    "threads",
    "batch",
    "scenario",
    "accuracy",
    "drop",
    "size MB",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "images/s",
    "memory MB",
    "J/image",
)

_MOST_LAYERS = 20
_SHARES = ("others_busy", "stolen", "frequency_fell")
_UNIT_WORDS = {"mhz": "MHz", "c": "°C", "s": "s", "mb": "MB", "gib": "GiB", "w": "W"}


@dataclass(frozen=True)
class Group:
    """Rows that can be compared with each other, the fastest first; `rows` are indices into the document's reports."""

    title: str
    slug: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Headline:
    """One of the answers at the top."""

    title: str
    name: str
    figures: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """One row of the table; `cells` stand under :data:`COLUMNS`."""

    cells: tuple[str, ...]
    recommended: bool


@dataclass(frozen=True)
class LayerTable:
    """The slowest layers of one artefact: name, kind, precision, ms, share."""

    name: str
    rows: tuple[tuple[str, str, str, str, str], ...]


Fact = tuple[str, str]


@dataclass(frozen=True)
class Content:
    """All words of a report. `findings` are None if nobody looked; `silent` is what the machine does not tell."""

    title: str
    subtitle: str
    findings: tuple[str, ...] | None
    compared: str
    headlines: tuple[Headline, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    layers: tuple[LayerTable, ...]
    device: tuple[Fact, ...]
    conditions: tuple[Fact, ...]
    silent: tuple[str, ...]


def grouped(reports: Sequence[LatencyReport]) -> list[Group]:
    """Rows of the same scenario and batch; a closed loop with batch 1, what most people ask for, comes first."""
    found: dict[tuple[int, int], list[int]] = {}
    order = list(SCENARIOS)
    for index, report in enumerate(reports):
        found.setdefault((order.index(report.scenario), report.batch), []).append(index)
    return [
        Group(
            title=f"{SCENARIOS[order[scenario]]}, batch {batch}",
            slug=f"{order[scenario]}-{batch}",
            rows=tuple(sorted(rows, key=lambda index: reports[index].p50_ms)),
        )
        for (scenario, batch), rows in sorted(found.items())
    ]


def pareto_front(reports: Sequence[LatencyReport]) -> list[int]:
    """Indices of the rows than which none is both as fast and as accurate, and better in one; the fastest first.

    Of rows that are equal in both, the first one. Rows without accuracy are on no front.
    """
    known = [(report.p50_ms, -report.top1, index) for index, report in enumerate(reports) if report.top1 is not None]
    front: list[int] = []
    best = float("inf")
    for _, lost, index in sorted(known):
        if lost < best:
            front.append(index)
            best = lost
    return front


def build_content(document: BenchDocument, layers: Mapping[str, Sequence[LayerTime]]) -> Content:
    """The words of a report."""
    reports = document.reports
    groups = grouped(reports)
    conditions = {key: value for key, value in document.conditions.items() if key != "findings"}
    facts = {**document.device, **conditions}
    return Content(
        title=f"{document.bundle}: how fast it is here",
        subtitle=f"Measured {document.created_at} · {_machine(document)} · manifest {document.bundle_sha256[:12]}",
        findings=document.findings,
        compared=groups[0].title,
        headlines=tuple(_headlines([reports[index] for index in groups[0].rows])),
        rows=tuple(Row(_cells(reports[index]), reports[index].recommended) for group in groups for index in group.rows),
        remarks=tuple(_remarks(reports)),
        layers=tuple(_layer_table(name, rows) for name, rows in layers.items() if rows),
        device=tuple(_facts(document.device)),
        conditions=tuple(_facts(conditions)),
        silent=tuple(_label(key) for key, value in facts.items() if value is None),
    )


def _machine(document: BenchDocument) -> str:
    cpu, cores = document.device.get("cpu"), document.device.get("cores")
    return ", ".join(
        [
            "machine unknown" if cpu is None else spoken(cpu),
            *([] if cores is None else [f"{spoken(cores)} {'core' if cores == 1 else 'cores'}"]),
        ]
    )


def _headlines(reports: Sequence[LatencyReport]) -> Iterator[Headline]:
    """The fastest, the most accurate and the recommended of `reports`, which are the fastest first."""
    names = row_names(reports)
    fastest = reports[0]
    limit = fastest.intervals.get("p50")
    as_fast = [
        name
        for name, report in zip(names[1:], reports[1:], strict=True)
        if limit is not None and (found := report.intervals.get("p50")) is not None and found.low_ms <= limit.high_ms
    ]
    remark = ""
    if as_fast:
        more = f" and {len(as_fast) - 2} more" if len(as_fast) > 2 else ""
        remark = f"Not to be told apart from {', '.join(as_fast[:2])}{more}: the intervals overlap."
    yield Headline("Fastest", names[0], _figures(fastest), remark)
    if known := [index for index, report in enumerate(reports) if report.top1 is not None]:
        best = max(known, key=lambda index: (reports[index].top1 or 0.0, -index))
        yield Headline("Most accurate", names[best], _figures(reports[best]))
    if recommended := [index for index, report in enumerate(reports) if report.recommended]:
        chosen = recommended[0]
        slower = reports[chosen].p50_ms / fastest.p50_ms
        others = "" if chosen == 0 else f"Takes {figure(slower)} times as long as the fastest."
        yield Headline("Recommended by the bundle", names[chosen], _figures(reports[chosen]), others)


def _figures(report: LatencyReport) -> tuple[str, ...]:
    accuracy = [] if report.top1 is None else [f"{report.top1:.2%} of pictures right"]
    return f"{p50_text(report)} ms, {figure(report.images_per_s)} images/s", *accuracy


def _cells(report: LatencyReport) -> tuple[str, ...]:
    offered = report.details.get("offered_per_s")
    scenario = SCENARIOS[report.scenario] + ("" if offered is None else f", {figure(offered)}/s")
    return (
        report.artefact,
        report.backend if report.device.lower() == "cpu" else f"{report.backend}, {report.device}",
        report.precision,
        NONE if report.threads is None else str(report.threads),
        str(report.batch),
        scenario,
        NONE if report.top1 is None else f"{report.top1:.2%}",
        NONE if report.drop is None else f"{report.drop:+.2f}",
        f"{report.size_bytes / 1e6:.2f}",
        p50_text(report),
        figure(report.p90_ms),
        figure(report.p99_ms),
        figure(report.images_per_s),
        figure(report.memory_peak_mb),
        figure(report.joules_per_image),
    )


def _remarks(reports: Sequence[LatencyReport]) -> Iterator[str]:
    yield (
        "p50 ± the wider side of its 95% interval, which holds for as long as the machine stays as it was. "
        f"{NONE} stands for what is not known: too few samples to believe a percentile, or a machine that does not tell. "
        "Drop is in points of accuracy lost against the trained model."
    )
    scenarios = {report.scenario for report in reports}
    if scenarios & {"closed-loop", "open-loop"}:
        yield (
            "Closed and open loop: from a picture's encoded bytes to its label, for all pictures of the batch. In an open "
            "loop the time begins with the arrival, and has the waiting in it."
        )
    if any(name.startswith("mlperf") for name in scenarios):
        yield "MLPerf's scenarios: from the prepared tensor to the logits."
    if any(report.details.get("compliant") == 0 for report in reports):
        yield "MLPerf's scenarios ran shorter than its rules ask: these are no MLPerf results, and not to be called so."
    names = row_names(reports)
    if waiting := [name for name, report in zip(names, reports, strict=True) if report.details.get("overloaded")]:
        yield f"More arrived than could be answered, so that waiting grew without end: {'; '.join(waiting)}."


def _layer_table(name: str, layers: Sequence[LayerTime]) -> LayerTable:
    slowest = sorted(layers, key=lambda layer: -layer.ms)
    rows = [
        (layer.layer, layer.kind, layer.precision, figure(layer.ms), f"{layer.share:.1%}")
        for layer in slowest[:_MOST_LAYERS]
    ]
    if rest := slowest[_MOST_LAYERS:]:
        time, share = sum(layer.ms for layer in rest), sum(layer.share for layer in rest)
        rows.append((f"{len(rest)} more", "", "", figure(time), f"{share:.1%}"))
    return LayerTable(name, tuple(rows))


def _facts(values: Mapping[str, object]) -> Iterator[Fact]:
    for key, value in values.items():
        if key in _SHARES and isinstance(value, float):
            yield _label(key), f"{value:.1%} of the time" if key != "frequency_fell" else f"{value:.1%}"
        elif value is not None:
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            yield _label(key), f"{spoken(value)} {_unit(key) if plain else ''}".rstrip()


def _unit(key: str) -> str:
    if key == "seconds":
        return "s"
    return next((_UNIT_WORDS[word] for word in key.split("_")[1:] if word in _UNIT_WORDS), "")


def _label(key: str) -> str:
    """`frequency_mhz_min` is "frequency min": the unit stands beside the figure."""
    if key == "seconds":
        return "measured for"
    first, *more = key.split("_")
    return " ".join([first, *(word for word in more if word not in _UNIT_WORDS)])
