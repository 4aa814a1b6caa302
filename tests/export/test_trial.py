"""The order in which ways are tried; the climb itself is tested by whole exports in test_ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unittest import mock

from edgewright.export.candidates import Candidate
from edgewright.export.trial import Trial


def test_ways_of_one_artefact_are_measured_in_turn_and_the_fastest_comes_first() -> None:
    ways = [
        Candidate("openvino.int8", "openvino", "int8", "int8", None, {"model.xml": how.encode()}, quantization=how)
        for how in ("slow", "fast", "middle")
    ]
    asked: list[list[str]] = []

    def latency(candidates: Sequence[Candidate], seconds: float) -> Mapping[str, float]:
        asked.append([candidate.name for candidate in candidates])
        times = {"slow": 3.0, "fast": 1.0, "middle": 2.0}
        return {candidate.name: times[str(candidate.quantization)] for candidate in candidates}

    trial = Trial.__new__(Trial)
    with mock.patch.object(Trial, "latency", side_effect=latency):
        found = trial.by_speed(ways)
    assert [candidate.quantization for candidate in found] == ["fast", "middle", "slow"]
    assert {candidate.name for candidate in found} == {"openvino.int8"}
    # In one go, so under names of their own.
    assert len(asked) == 1
    assert len(set(asked[0])) == 3
