"""The comparisons that start from a bundle, on a small real one with every artefact that a CPU can run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from edgewright.export.exporter import Export
    from tests.benchmarks.conftest import Measure


@pytest.fixture
def bundle(digits_export: Export) -> Path:
    return digits_export.bundle.path


@pytest.mark.slow
def test_predictor_overhead_is_measured_for_every_artefact(measure: Measure, bundle: Path) -> None:
    rows = measure("predictor_overhead", bundle, "--seconds", 0.1)["artefacts"]
    assert {row["artefact"] for row in rows} >= {"model.fp32", "model.int8.ort-x86", "openvino.fp32", "openvino.int8"}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours_ms"] / row["engine_ms"])
        assert row["samples"] >= 5


@pytest.mark.slow
def test_first_label_needs_no_heavy_module(measure: Measure, bundle: Path) -> None:
    rows = measure("cold_start", bundle, "--runs", 1)["artefacts"]
    assert {row["artefact"] for row in rows} == {"model.fp32", "model.fp16", "model.int8.ort-x86"}
    for row in rows:
        assert row["heavy_modules"] == []
        assert 0 < row["seconds"] < row["process_seconds"]
        assert row["peak_mb"] > 10


@pytest.mark.slow
def test_picture_to_label_is_compared_with_eager_torch(measure: Measure, bundle: Path) -> None:
    found = measure("image_to_label", bundle, "--data", bundle / "golden", "--rounds", 1, "--seconds", 0.1)
    (peer,) = found["peers"]
    assert found["ratios"][peer] == pytest.approx(found["ours_ms"] / found["peers"][peer])
    assert min(found["samples"].values()) >= 1
    assert found["pictures"] == len(list((bundle / "golden").glob("*.png")))


@pytest.mark.slow
def test_serving_is_compared_with_the_runtime_alone_and_under_load(measure: Measure, bundle: Path) -> None:
    how = ("--rounds", 1, "--seconds", 0.5, "--requests", 100)
    found = measure("serving", bundle, "--data", bundle / "golden", "--artefact", "model.fp32", *how)
    rates = found["images_per_s"]
    assert found["ratios"] == {"in_process": pytest.approx(rates["ours"] / rates["in_process"])}
    usual, twice = found["at_capacity"], found["at_twice_the_capacity"]
    assert twice["offered_per_s"] == pytest.approx(2 * usual["offered_per_s"])
    assert 0 < usual["admitted_p50_ms"] <= usual["admitted_p99_ms"]
    assert twice["admitted"] > 0
    assert found["memory"]["requests"] == 100


@pytest.mark.slow
def test_stream_is_compared_with_the_loop(measure: Measure, bundle: Path, tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (64, 48), (50 * number,) * 3).save(tmp_path / f"{number}.png")
    found = measure("pipeline", bundle, "--data", tmp_path, "--images", 4, "--rounds", 1, "--batch", 2)
    assert found["images"] == 4
    assert {row["backend"] for row in found["artefacts"]} == {"onnxruntime", "openvino"}
    for row in found["artefacts"]:
        speed = row["images_per_s"]
        assert set(speed) == {"loop", "stream", "stream, batch 2", "one worker, batch 2"}
        assert row["ratio"] == pytest.approx(speed["stream"] / speed["loop"])


@pytest.mark.slow
def test_engines_own_tools_are_compared_with(measure: Measure, bundle: Path) -> None:
    rows = measure("latency_agreement", bundle, "--rounds", 1, "--seconds", 1)["artefacts"]
    assert {(row["artefact"].partition(".")[0], row["tool"]) for row in rows} == {
        ("model", "bare session"),
        ("openvino", "benchmark_app"),
    }
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours_ms"] / row["theirs_ms"])
        # Far off it would be another model, or other threads; what it is worth is for a quiet machine to say.
        assert 0.2 < row["ratio"] < 5


@pytest.mark.slow
def test_cost_of_measuring_is_measured(measure: Measure, bundle: Path) -> None:
    found = measure("measuring_cost", bundle, "--seconds", 1)
    assert found["ratio"] == pytest.approx(found["reported_ms"] / found["bare_ms"])
    assert found["samples"] > 20


@pytest.mark.slow
def test_pairs_of_runs_are_compared(measure: Measure, bundle: Path) -> None:
    found = measure("repeatability", bundle, "--tries", 2, "--seconds", 1)
    first, second = found["differences"]
    assert found["within"] == sum(row["within"] for row in (first, second)) / 2
    for row in (first, second):
        assert row["low_ms"] <= row["b_ms"] - row["a_ms"] <= row["high_ms"]
        assert row["within"] == (row["low_ms"] <= 0 <= row["high_ms"])


@pytest.mark.slow
@pytest.mark.browser
def test_page_is_measured_in_a_browser(bundle: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("needs Chromium, which this machine does not have")
    # A process of its own: Playwright allows one of its kind in each.
    command = [sys.executable, "-W", "ignore", "-m", "edgewright.benchmarks.peers.demo_page", str(bundle)]
    done = subprocess.run([*command, "--seconds", "2", "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["served_s"] < found["usable_s"]
    assert found["upload_to_label_ms"] > found["runtime_ms"] > 0
    assert found["camera_frames_per_s"] > 1
    assert 100 < found["memory_mb"] < 2000
