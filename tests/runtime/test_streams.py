"""The comparison of threads and streams runs, and says what the engines really had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewright.benchmarks.streams import candidates, main


def test_settings_are_compared_for_each_engine(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(tiny_bundle, callers=[1, 3], seconds=0.05, rounds=1, json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["artefact"] for row in rows} == {"model.fp32", "openvino.fp32"}
    assert {row["callers"] for row in rows} == {1, 3}
    assert all(row["images_per_s"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
    assert {row["streams"] for row in rows if row["artefact"] == "openvino.fp32"} >= {1}


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_each_setting_is_there_once(cores: int) -> None:
    pairs = [(settings.threads, settings.streams) for settings in candidates(cores)]
    assert len(set(pairs)) == len(pairs)
    assert (cores, None) in pairs
    assert (1, cores) in pairs
