"""Two measurements: what is slower beyond noise, what is only in one, and when a comparison means nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgewright.benchmarks.compare import compare_documents
from edgewright.benchmarks.compare_command import compare_command, parse_percent
from edgewright.benchmarks.document import BenchDocument
from edgewright.benchmarks.reports import Interval, LatencyReport
from edgewright.runtime.errors import EdgewrightError, GateError, UsageError

ROW = LatencyReport(
    artefact="model.fp32", backend="onnxruntime", device="cpu", provider="CPUExecutionProvider", precision="fp32",
    scenario="closed-loop", threads=2, batch=1, samples=700, p50_ms=10.0, p90_ms=None, p95_ms=None, p99_ms=None,
    intervals={"p50": Interval(9.7, 10.4)}, images_per_s=100.0, stages_ms={}, size_bytes=1, top1=0.9, drop=0.1,
    recommended=True,
)  # fmt: skip
INT8 = replace(ROW, artefact="model.int8", p50_ms=5.0, intervals={"p50": Interval(4.9, 5.1)})
DEVICE: dict[str, Any] = {"cpu": "a CPU", "cpu_features": ["avx2"], "cores": 2, "versions": {"numpy": "2.0"}}


def document(*reports: LatencyReport, **changes: Any) -> BenchDocument:
    usual = {"bundle": "digits", "bundle_sha256": "0" * 64, "created_at": "2025-01-01T00:00:00+00:00"}
    return BenchDocument(**{**usual, "device": DEVICE, "conditions": {}, "reports": reports, **changes})


def times(p50_ms: float, low_ms: float, high_ms: float) -> LatencyReport:
    return replace(ROW, p50_ms=p50_ms, intervals={"p50": Interval(low_ms, high_ms)})


def test_limits_are_those_worked_out_by_hand() -> None:
    # Below: hypot(12 - 11.7, 10.4 - 10) = 0.5. Above: hypot(12.4 - 12, 10 - 9.7) = 0.5.
    (found,) = compare_documents(document(ROW), document(times(12.0, 11.7, 12.4))).differences
    assert (found.percentile, found.a_ms, found.b_ms) == ("p50", 10.0, 12.0)
    assert (found.ratio, found.difference_ms) == (pytest.approx(1.2), pytest.approx(2.0))
    assert (found.low_ms, found.high_ms) == (pytest.approx(1.5), pytest.approx(2.5))
    assert found.significant


@pytest.mark.parametrize(
    ("later", "significant", "slower", "faster"),
    [
        (times(12.0, 11.7, 12.4), True, 1, 0),
        (times(8.0, 7.7, 8.4), True, 0, 1),
        (times(10.4, 10.1, 10.8), False, 0, 0),
        (times(10.0, 9.7, 10.4), False, 0, 0),
        # Overlapping intervals may still be apart: 0.56 beyond, 0.5 of noise.
        (times(10.56, 10.26, 10.96), True, 1, 0),
        (times(12.0, 9.0, 15.0), False, 0, 0),
        (replace(ROW, p50_ms=12.0, intervals={}), False, 0, 0),
    ],
)
def test_significance(later: LatencyReport, significant: bool, slower: int, faster: int) -> None:
    found = compare_documents(document(ROW), document(later))
    assert found.differences[0].significant is significant
    assert (len(found.slower()), len(found.faster())) == (slower, faster)


LIMITS = st.tuples(st.floats(1, 100), st.floats(0, 10), st.floats(0, 10)).map(
    lambda drawn: times(drawn[0], max(0.0, drawn[0] - drawn[1]), drawn[0] + drawn[2])
)


@given(LIMITS, LIMITS)
def test_what_is_slower_one_way_is_faster_the_other(one: LatencyReport, other: LatencyReport) -> None:
    (there,) = compare_documents(document(one), document(other)).differences
    (back,) = compare_documents(document(other), document(one)).differences
    assert there.low_ms is not None
    assert back.high_ms is not None
    assert there.low_ms == pytest.approx(-back.high_ms)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.significant == back.significant


@given(LIMITS)
def test_nothing_differs_from_itself(one: LatencyReport) -> None:
    found = compare_documents(document(one), document(one))
    assert not found.differences[0].significant
    assert found.notes == ()


def test_percentiles_that_both_have() -> None:
    a = replace(ROW, p90_ms=11.0, p95_ms=12.0, p99_ms=13.0)
    found = compare_documents(document(a), document(replace(a, p99_ms=None)))
    assert [each.percentile for each in found.differences] == ["p50", "p90"]


def test_rows_are_matched_by_all_that_they_are() -> None:
    others = [
        replace(ROW, **change)  # type: ignore[arg-type]
        for change in (
            {"artefact": "b"},
            {"backend": "openvino"},
            {"threads": 1},
            {"batch": 8},
            {"scenario": "mlperf-offline"},
            {"device": "cuda"},
            {"details": {"offered_per_s": 3.0}},
        )
    ]
    for other in others:
        found = compare_documents(document(ROW, INT8), document(INT8, other))
        assert [each.artefact for each in found.differences] == ["model.int8"]
        assert (len(found.only_a), len(found.only_b)) == (1, 1)
        # Neither is called what the other could be called as well.
        assert found.only_a != found.only_b
    # In another order, every row still finds its own.
    whole = [replace(row, p50_ms=10.0 + number) for number, row in enumerate([ROW, *others])]
    found = compare_documents(document(*whole), document(*reversed(whole)))
    assert [each.ratio for each in found.differences] == [1.0] * len(whole)
    assert (found.only_a, found.only_b) == ((), ())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": {**DEVICE, "cpu": "another"}}, "not the same machine: cpu a CPU, then another"),
        ({"device": {**DEVICE, "cores": 4}}, "not the same machine: cores 2, then 4"),
        ({"device": {**DEVICE, "cpu_features": []}}, "not the same machine: cpu features avx2, then none"),
        ({"device": {**DEVICE, "versions": {"numpy": "2.1"}}}, "not the same software: numpy 2.0, then 2.1"),
        ({"conditions": {"governor": "powersave"}}, "not the same settings: governor unknown, then powersave"),
        ({"bundle_sha256": "1" * 64}, "not the same bundle: digits 000000000000, then digits 111111111111"),
        ({"conditions": {"findings": ["Hot."]}}, "the later measurement is doubtful: Hot."),
    ],
)
def test_notes(changes: dict[str, Any], expected: str) -> None:
    assert compare_documents(document(ROW), document(ROW, **changes)).notes == (expected,)
    assert len(compare_documents(document(ROW, **changes), document(ROW)).notes) == 1


def run(folder: Path, a: BenchDocument, b: BenchDocument, *options: str) -> tuple[dict[str, Any], BaseException | None]:
    """The document that is printed, none being an empty one, and how the command ended."""
    app = typer.Typer()
    app.command()(compare_command)
    for name, each in (("a.json", a), ("b.json", b)):
        (folder / name).write_text(json.dumps(each.as_json()))
    result = CliRunner().invoke(app, [str(folder / "a.json"), str(folder / "b.json"), "--json", *options])
    printed: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
    return printed, result.exception


def test_command_prints_one_document(tmp_path: Path) -> None:
    found, error = run(tmp_path, document(ROW, INT8), document(times(12.0, 11.7, 12.4)))
    assert error is None
    assert set(found) == {"slower", "faster", "differences", "only_a", "only_b", "notes"}
    assert [each["artefact"] for each in found["slower"]] == ["model.fp32"]
    assert found["only_a"] == ["model.int8"]


def test_command_says_to_people_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("notice", "warn"):
        monkeypatch.setattr(f"edgewright.benchmarks.compare_command.{name}", told.append)
    tables: list[list[Any]] = []
    monkeypatch.setattr(
        "edgewright.benchmarks.compare_command.print_table", lambda title, columns, rows: tables.append(list(rows))
    )
    other = document(times(12.0, 11.7, 12.4), conditions={"findings": ["Hot."]})
    run(tmp_path, document(ROW, INT8), other)
    assert tables == [[("model.fp32", "10.0", "12.0", "+20.0%", "+15.0 … +25.0%", None, None, "slower")]]
    assert any("Hot." in line for line in told)
    assert any("only in the earlier" in line and "model.int8" in line for line in told)
    assert any(line.startswith("next: edgewright bench compare") for line in told)


@pytest.mark.parametrize(
    ("later", "tolerance", "fails"),
    [
        (times(12.0, 11.7, 12.4), "10%", True),
        (times(12.0, 11.7, 12.4), "10", True),
        (times(12.0, 11.7, 12.4), "25 %", False),
        (times(12.0, 11.7, 12.4), "0", True),
        (times(12.0, 9.0, 15.0), "10%", False),
        (times(8.0, 7.7, 8.4), "0%", False),
    ],
)
def test_gate(later: LatencyReport, tolerance: str, fails: bool, tmp_path: Path) -> None:
    found, error = run(tmp_path, document(ROW), document(later), "--fail-if-slower", tolerance)
    assert isinstance(error, GateError) is fails, error
    assert isinstance(error, EdgewrightError) is fails, error
    # What was found is printed in either case.
    assert len(found["differences"]) == 1


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    found, error = run(tmp_path, document(ROW), document(INT8), "--fail-if-slower", "10%")
    assert isinstance(error, UsageError)
    assert "model.fp32" in str(error)
    assert "model.int8" in str(error)
    assert found == {}


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("10", 0.1), (" 2.5 % ", 0.025), ("0", 0.0), ("0.5%", 0.005)]
)
def test_percentages(text: str, share: float) -> None:
    assert parse_percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "ten", "-1%", "nan", "inf", "1e999%", "0.1", "10%%"])
def test_nonsense_is_no_percentage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_percent(text)
