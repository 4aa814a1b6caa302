"""`tune` measures, chooses and remembers; `load` takes what was chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgewright
from edgewright.benchmarks.tune_command import tune_command
from edgewright.export.exporter import Export
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.device_cache import CACHE_VARIABLE
from edgewright.runtime.errors import GateError

Tune = Callable[..., dict[str, Any]]


@pytest.fixture
def bundle(digits_export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return digits_export.bundle


@pytest.fixture
def tune(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> Tune:
    def run(**options: Any) -> dict[str, Any]:
        tune_command(bundle.path, seconds=2, json=True, **options)
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


def test_choice_is_remembered_used_and_forgotten(bundle: Bundle, tune: Tune, tmp_path: Path) -> None:
    document = tune(threads="1", max_drop=100)
    chosen, candidates = document["chosen"], document["candidates"]
    assert {"artefact", "backend", "threads", "p50_ms", "top1", "rejected"} <= set(candidates[0])
    assert [each["rejected"] for each in candidates].count("") == 1
    assert all(each["p50_ms"] for each in candidates)
    # Whatever was chosen, another one is the test: the file is the only thing that load asks.
    other = next(each for each in candidates if each["artefact"] == "model.fp32")
    (file,) = (tmp_path / "cache" / "tuned").iterdir()
    kept = json.loads(file.read_text())
    assert (kept["artefact"], kept["threads"]) == (chosen["artefact"], 1)
    file.write_text(json.dumps(kept | {"artefact": other["artefact"]}))
    with edgewright.load(bundle.path) as classifier:
        assert (classifier.artefact.name, classifier.execution.threads) == (other["artefact"], 1)
    with edgewright.load(bundle.path, artefact="openvino.fp32") as classifier:
        assert classifier.artefact.name == "openvino.fp32"
    with edgewright.load(bundle.path, threads=2) as classifier:
        assert (classifier.artefact.name, classifier.execution.threads) == (other["artefact"], 2)
    tune_command(bundle.path, forget=True)
    with edgewright.load(bundle.path) as classifier:
        assert classifier.artefact.name == bundle.manifest.recommended


def test_limits_that_nothing_keeps_fail_and_keep_what_was_chosen(
    bundle: Bundle, tune: Tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(threads="1", max_drop=100)
    (file,) = (tmp_path / "cache" / "tuned").iterdir()
    before = file.read_bytes()
    with pytest.raises(GateError, match="keeps the limits here"):
        tune_command(bundle.path, threads="1", seconds=2, max_drop=100, target_ms=0.001, json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["chosen"] is None
    assert all("0.001 are allowed" in each["rejected"] for each in document["candidates"])
    assert file.read_bytes() == before


def test_memory_is_measured_and_held_against_a_candidate(tune: Tune) -> None:
    document = tune(threads="1", max_drop=100, max_memory=10_000)
    assert all(20 < each["memory_peak_mb"] < 10_000 for each in document["candidates"])
    peaks = sorted(each["memory_peak_mb"] for each in document["candidates"])
    document = tune(threads="1", max_drop=100, max_memory=(peaks[0] + peaks[-1]) / 2)
    over = [each for each in document["candidates"] if "MB of memory" in each["rejected"]]
    assert over
    assert all(each["p50_ms"] is None for each in over)


def test_accuracy_measured_here_is_held_against_a_candidate(
    bundle: Bundle, tune: Tune, digits_export: Export, tmp_path: Path
) -> None:
    # Pictures in the folder of another class: nothing gets them right, so nothing loses anything either.
    first, second = bundle.manifest.labels[:2]
    for number, vector in enumerate(bundle.manifest.golden):
        wrong = first if vector.label != first else second
        target = tmp_path / "data" / wrong / f"{number}{Path(vector.image).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bundle.read(vector.image))
    document = tune(threads="1", data=tmp_path / "data", max_drop=0)
    assert {each["top1"] for each in document["candidates"]} == {0.0}
    assert document["chosen"] is not None


def test_cache_that_cannot_be_written_is_told_before_the_work(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match="tuned"):
        tune_command(bundle.path)
    assert "p50" not in capsys.readouterr().err
