"""bench.json: what was written is what is read, and what nobody wrote is refused in one sentence."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgewright.benchmarks.device import DeviceFacts
from edgewright.benchmarks.document import LARGEST_FILE, BenchDocument, document_of, read_document, row_names
from edgewright.benchmarks.reports import Interval, LatencyReport, LayerTime
from edgewright.runtime.errors import UsageError

ROW = LatencyReport(
    artefact="model.fp32", backend="onnxruntime", device="cpu", provider="CPUExecutionProvider", precision="fp32",
    scenario="closed-loop", threads=2, batch=1, samples=700, p50_ms=2.5, p90_ms=3.0, p95_ms=None, p99_ms=None,
    intervals={"p50": Interval(2.4, 2.6)}, images_per_s=400.0, stages_ms={"decode": 0.5, "inference": 2.0},
    size_bytes=1_000_000, top1=0.9, drop=0.1, recommended=True,
)  # fmt: skip
FACTS = DeviceFacts("a CPU", ("avx2",), 2, 15.6, "Linux 6", "x86_64", "3.11", {"numpy": "2"}, 0.1)


def document(*reports: LatencyReport) -> BenchDocument:
    return document_of(
        bundle="digits",
        bundle_sha256="0" * 64,
        device=FACTS,
        conditions={"seconds": 3.5, "governor": None, "findings": ("It was busy.",)},
        reports=reports or (ROW,),
    )


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as refused:
        read_document(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = document(ROW, replace(ROW, threads=None, details={"offered_per_s": 12.5}))
    found = read_document(write(tmp_path / "bench.json", written.as_json()))
    assert found == written
    assert found.reports[0] == ROW
    assert found.findings == ("It was busy.",)
    assert found.device["cpu_features"] == ["avx2"]


def test_layers_are_read_where_there_are_some(tmp_path: Path) -> None:
    content = document().as_json()
    assert "layers" not in content
    content["layers"] = {"model.fp32": [vars(LayerTime("conv1", "Conv", "fp32", 0.5, 0.25))]}
    found = read_document(write(tmp_path / "a.json", content))
    assert found.layers == {"model.fp32": (LayerTime("conv1", "Conv", "fp32", 0.5, 0.25),)}
    assert found.as_json() == content
    for key, value in (("ms", -1.0), ("ms", 1e300), ("share", 1.5), ("ms", float("nan"))):
        broken = copy.deepcopy(content)
        broken["layers"]["model.fp32"][0][key] = value
        assert "layers" in refusal(write(tmp_path / "a.json", broken))


def test_nobody_looked_is_not_nothing_found(tmp_path: Path) -> None:
    content = document().as_json()
    del content["conditions"]["findings"]
    assert read_document(write(tmp_path / "a.json", content)).findings is None
    content["conditions"]["findings"] = []
    assert read_document(write(tmp_path / "a.json", content)).findings == ()


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = document().as_json()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("schema_version",), 2, "schema_version"),
        (("more",), 1, "more"),
        (("bundle_sha256",), "abc", "bundle_sha256"),
        (("reports",), [], "reports"),
        (("reports", 0, "p51_ms"), 1.0, "p51_ms"),
        (("reports", 0, "p50_ms"), "2.5", "p50_ms"),
        (("reports", 0, "p50_ms"), 0, "row 1"),
        (("reports", 0, "p50_ms"), float("nan"), "p50_ms"),
        (("reports", 0, "p99_ms"), float("inf"), "p99_ms"),
        (("reports", 0, "p99_ms"), 1e300, "percentile"),
        (("reports", 0, "scenario"), "closed", "scenario"),
        (("reports", 0, "top1"), 90.0, "accuracy"),
        (("reports", 0, "batch"), 0, "batch"),
        (("reports", 0, "threads"), True, "threads"),
        (("reports", 0, "size_bytes"), -1, "negative"),
        (("reports", 0, "stages_ms"), {"decoding": 1.0}, "stage"),
        (("reports", 0, "stages_ms"), {"decode": -1.0}, "stage"),
        (("reports", 0, "intervals"), {"p51": {"low_ms": 1.0, "high_ms": 2.0}}, "interval"),
        (("reports", 0, "intervals", "p50", "high_ms"), 1.0, "interval"),
        (("reports", 0, "intervals", "p50", "middle_ms"), 2.5, "middle_ms"),
        (("conditions", "findings"), "It was busy.", "findings"),
        (("conditions", "stolen"), float("nan"), "conditions"),
        (("device", "load_average"), float("inf"), "device"),
    ],
)
def test_what_no_measurement_says_is_refused(path: tuple[Any, ...], value: Any, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(write(tmp_path / "a.json", changed(path, value)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"a": 1}'])
def test_what_is_no_document_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert "\n" not in refusal(path)


def test_missing_folder_and_oversized_are_refused(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "missing.json")
    assert "no file" in refusal(tmp_path)
    large = tmp_path / "film.mkv"
    large.touch()
    os.truncate(large, LARGEST_FILE + 1)
    assert "64 MB" in refusal(large)
    with pytest.raises(UsageError):
        read_document(Path("a\0b"))


def read_or_refuse(path: Path) -> BenchDocument | None:
    try:
        found = read_document(path)
    except UsageError:
        return None
    # What is accepted can be printed again.
    json.dumps(found.as_json(), allow_nan=False).encode()
    return found


TEXT = json.dumps(document().as_json()).encode()
SAME_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SAME_FOLDER
@given(st.binary(max_size=400))
@example(TEXT.replace(b"2.5", b"1e999"))
@example(TEXT.replace(b'"a CPU"', b'"\\ud800"'))
@example(TEXT.replace(b'"a CPU"', b"1e999"))
@example(TEXT.replace(b'"a CPU"', b"9" * 4000))
@example(TEXT.replace(b'"a CPU"', b"[" * 190 + b"]" * 190))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    read_or_refuse(tmp_path / "a.json")


@SAME_FOLDER
@given(st.integers(0, len(TEXT)), st.integers(0, 3), st.binary(max_size=3))
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, place: int, cut: int, inserted: bytes) -> None:
    (tmp_path / "a.json").write_bytes(TEXT[:place] + inserted + TEXT[place + cut :])
    read_or_refuse(tmp_path / "a.json")


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in inner for place in ((*path, key), *places(value, (*path, key)))]


PLACES = places(document().as_json())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@SAME_FOLDER
@given(st.sampled_from(PLACES), ANYTHING)
def test_altered_documents_are_read_or_refused(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    content = changed(path, copy.deepcopy(value))
    found = read_or_refuse(write(tmp_path / "a.json", content))
    # Whatever was accepted was not changed on the way.
    assert found is None or json.loads(json.dumps(found.as_json())) == content


def test_rows_are_named_by_what_differs() -> None:
    assert row_names([ROW]) == ["model.fp32"]
    assert row_names([ROW, replace(ROW, artefact="other")]) == ["model.fp32", "other"]
    assert row_names([ROW, replace(ROW, threads=1)]) == ["model.fp32, 2 threads", "model.fp32, 1 thread"]
    assert row_names([ROW, replace(ROW, backend="openvino", batch=8)]) == [
        "model.fp32, onnxruntime, batch 1",
        "model.fp32, openvino, batch 8",
    ]
    assert row_names([ROW, ROW]) == ["model.fp32", "model.fp32 (2)"]
