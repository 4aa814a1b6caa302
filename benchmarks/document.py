"""The file that a measurement leaves, `bench.json`: written here, and read back with nothing taken on trust."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgewright.benchmarks.reports import STAGES, LatencyReport, LayerTime
from edgewright.runtime.errors import UsageError

if TYPE_CHECKING:
    from edgewright.benchmarks.device import DeviceFacts

__all__ = ["LARGEST_FILE", "BenchDocument", "document_of", "read_document", "row_names"]

LARGEST_FILE = 64_000_000
"""Bytes. A measurement of a thousand settings has two million."""

_PERCENTILES = ("p50", "p90", "p95", "p99")
_TIMES_MS = (1e-6, 1e9)
"""From a nanosecond to eleven days: within them no ratio of two times overflows."""
_LARGEST = 1e15


class BenchDocument(BaseModel):
    """One measurement: what was measured, where, in which conditions, and what came out.

    Attributes:
        schema_version: Of this file.
        bundle: The bundle's name.
        bundle_sha256: Of its manifest, which has the checksums of all other files.
        created_at: When, ISO 8601.
        device: The fields of :class:`~edgewright.benchmarks.device.DeviceFacts`; more or fewer are no error.
        conditions: What was watched while measuring; any keys. "findings", if it is there, is a list of sentences on
            what makes the figures doubtful.
        reports: A row for each way to run the model.
        layers: Times of single layers, where they were asked for, by artefact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    schema_version: Literal[1] = 1
    bundle: str = Field(max_length=1000)
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: str = Field(max_length=100)
    device: dict[str, Any]
    conditions: dict[str, Any]
    reports: tuple[LatencyReport, ...] = Field(min_length=1)
    layers: dict[str, tuple[LayerTime, ...]] = Field(default_factory=dict)

    @field_validator("device", "conditions")
    @classmethod
    def _json_only(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Refuses NaN and infinity, which pydantic lets pass where a value may be anything, and makes lists of tuples.
        copied: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
        return copied

    @field_validator("conditions")
    @classmethod
    def _findings_are_sentences(cls, values: dict[str, Any]) -> dict[str, Any]:
        found = values.get("findings", [])
        if not isinstance(found, list) or not all(isinstance(finding, str) for finding in found):
            raise ValueError("findings are not a list of sentences")
        return values

    @field_validator("reports")
    @classmethod
    def _possible(cls, reports: tuple[LatencyReport, ...]) -> tuple[LatencyReport, ...]:
        for number, report in enumerate(reports):
            if why := _impossible(report):
                raise ValueError(f"row {number + 1}: {why}")
        return reports

    @field_validator("layers")
    @classmethod
    def _possible_layers(cls, layers: dict[str, tuple[LayerTime, ...]]) -> dict[str, tuple[LayerTime, ...]]:
        if not all(0 <= one.ms <= _TIMES_MS[1] and 0 <= one.share <= 1 for table in layers.values() for one in table):
            raise ValueError("a layer's time is negative or too large, or its share not between 0 and 1")
        return layers

    @property
    def findings(self) -> tuple[str, ...] | None:
        """What makes the figures doubtful; None if nobody looked."""
        return tuple(self.conditions["findings"]) if "findings" in self.conditions else None

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints and bench.json holds; "layers" only where there are some."""
        return self.model_dump(mode="json", exclude=None if self.layers else {"layers"})


def _impossible(report: LatencyReport) -> str | None:
    """Why no measurement says this, or None."""
    shortest, longest = _TIMES_MS
    times = [getattr(report, f"{name}_ms") for name in _PERCENTILES]
    if not all(value is None or shortest <= value <= longest for value in times):
        return f"a percentile is not between {shortest:g} and {longest:g} ms"
    if not set(report.intervals) <= set(_PERCENTILES):
        return f"an interval of something else than {', '.join(_PERCENTILES)}"
    if not all(0 <= found.low_ms <= found.high_ms <= longest for found in report.intervals.values()):
        return "an interval that ends before it begins"
    if not set(report.stages_ms) <= set(STAGES):
        return f"a stage that is not one of {', '.join(STAGES)}"
    if not all(0 <= value <= longest for value in report.stages_ms.values()):
        return f"a stage that does not take between 0 and {longest:g} ms"
    if not (report.top1 is None or 0 <= report.top1 <= 1):
        return "an accuracy that is not between 0 and 1"
    counts = (report.samples, report.batch, 1 if report.threads is None else report.threads)
    if not all(1 <= count <= _LARGEST for count in counts):
        return "samples, batch or threads below 1"
    sizes = (report.images_per_s, report.size_bytes, report.memory_peak_mb or 0, report.joules_per_image or 0)
    if not all(0 <= size <= _LARGEST for size in sizes) or not abs(report.drop or 0) <= 100:
        return "a figure that is negative or too large"
    return None


def document_of(
    *,
    bundle: str,
    bundle_sha256: str,
    device: DeviceFacts,
    conditions: Mapping[str, Any],
    reports: Sequence[LatencyReport],
) -> BenchDocument:
    """The document of a measurement that has just ended.

    Args:
        bundle: The bundle's name.
        bundle_sha256: Of its manifest file.
        device: The machine.
        conditions: See :class:`BenchDocument`; whatever JSON can hold.
        reports: At least one.
    """
    return BenchDocument(
        bundle=bundle,
        bundle_sha256=bundle_sha256,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        device=asdict(device),
        conditions=dict(conditions),
        reports=tuple(reports),
    )


def read_document(path: Path) -> BenchDocument:
    """Read what `edgewright bench --json` printed, or the bench.json of a report.

    Raises:
        UsageError: there is no such file, it is not one of these, or it is damaged.
    """
    # A size is asked for first: a wrong name may be that of a video.
    try:
        if not path.is_file():
            raise UsageError(f"There is no file '{path}'. Write one with: edgewright bench BUNDLE --json > {path}")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise UsageError(f"'{path}' has {size / 1e6:.0f} MB. A file of `edgewright bench --json` is far smaller.")
        text = path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise UsageError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        return BenchDocument.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"'{path}' is no file of `edgewright bench --json`: {f'{where}: ' if where else ''}{first['msg']}. "
            "Measure again with this version of edgewright."
        ) from error


def row_names(reports: Sequence[LatencyReport]) -> list[str]:
    """A name for each row that tells it from the others, and says nothing that is the same for all."""
    parts = [[report.artefact] for report in reports]
    _tell_apart(parts, [report.backend for report in reports], of_artefacts=reports)
    _tell_apart(parts, [report.device for report in reports])
    _tell_apart(
        parts,
        ["threads unknown" if report.threads is None else _count(report.threads, "thread") for report in reports],
    )
    _tell_apart(parts, [f"batch {report.batch}" for report in reports])
    _tell_apart(parts, [report.scenario for report in reports])
    offered = [report.details.get("offered_per_s") for report in reports]
    _tell_apart(parts, ["" if rate is None else f"{rate:.4g} offered/s" for rate in offered])
    names = [", ".join(filter(None, row)) for row in parts]
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name} ({seen[name]})"
    return names


def _tell_apart(
    parts: list[list[str]], words: Sequence[str], *, of_artefacts: Sequence[LatencyReport] | None = None
) -> None:
    if of_artefacts is not None:
        # An artefact's name nearly always says for which engine it is.
        pairs = {(report.artefact, report.backend) for report in of_artefacts}
        if len(pairs) == len({name for name, _ in pairs}):
            return
    if len(set(words)) > 1:
        for row, word in zip(parts, words, strict=True):
            row.append(word)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
