"""A clock that shows another day whenever somebody looks: yesterday, in ten years, 1970. Results are as ever.

Training with such a clock is in `test_kill.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import edgewright
from edgewright.benchmarks.document import read_document
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.device_cache import CACHE_VARIABLE
from edgewright.runtime.tuned import tuned_choice

from .conftest import Start

FAULT = "clock that jumps"


def said_seconds(text: str) -> list[float]:
    """Durations that a person is shown."""
    return [float(found) for found in re.findall(r"(-?\d+(?:\.\d+)?) (?:s|ms)\b", text)]


def test_device_is_tuned_compiled_measured_and_labels(
    tmp_path: Path, small_bundle: Path, run: Start, faults: Any
) -> None:
    cache, report, labels = tmp_path / "cache", tmp_path / "report", tmp_path / "labels.jsonl"
    measured = ("--threads", "1", "--batch", "1", "--scenario", "closed-loop,open-loop")
    commands = {
        "compile": ("--backend", "openvino"),
        "tune": ("--seconds", "0.5", "--threads", "1", "--max-drop", "100"),
        "bench": (*measured, "--seconds", "0.5", "--rate", "200", "--report", report),
        "predict": (small_bundle / "golden" / "000.png", "--out", labels),
    }
    for command, more in commands.items():
        faults.tried(FAULT, command)
        done = run(command, small_bundle, *more, environment={CACHE_VARIABLE: str(cache)}, jumping_clock=True).done()
        assert done.returncode == 0, done.stderr
        assert min(said_seconds(done.stderr), default=0) >= 0
    # It is today's again.
    assert tuned_choice(open_bundle(small_bundle).manifest, cache) is not None
    with edgewright.load(small_bundle, cache=cache) as classifier:
        assert classifier(small_bundle / "golden" / "000.png").label == "red"
    document = read_document(report / "bench.json")
    assert len(document.reports) == 4
    assert all(0 < one.p50_ms < 10_000 for one in document.reports if one.p50_ms is not None)
    assert all(0 <= value < 10_000 for one in document.reports for value in one.stages_ms.values())
    (row,) = [json.loads(line) for line in labels.read_text().splitlines()]
    assert row["label"] == "red"
