"""`bench` on a real bundle: every scenario, the samples, the layers, the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.benchmarks.bench import BenchPlan, BenchResult, bench
from edgewright.benchmarks.closed_loop import measure_closed_loop, report_of
from edgewright.benchmarks.commands import bench_command, parse_counts, parse_scenarios
from edgewright.benchmarks.document import read_document
from edgewright.benchmarks.layers import layer_tables, parse_onnxruntime_profile
from edgewright.benchmarks.loadgen import SCENARIOS, parse_summary
from edgewright.benchmarks.memory import artefact_memory_mb
from edgewright.benchmarks.reports import STAGES, LatencyReport
from edgewright.benchmarks.samples_file import write_samples
from edgewright.benchmarks.subjects import configurations, open_subjects
from edgewright.export.exporter import Export
from edgewright.runtime.backends import DEFAULT_SETTINGS, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.manifest import Artefact


@pytest.fixture(scope="module")
def bundle(digits_export: Export) -> Bundle:
    return digits_export.bundle


@pytest.fixture(scope="module")
def artefacts(bundle: Bundle) -> list[Artefact]:
    """Those of both engines, FP32."""
    return [artefact for artefact in runnable_artefacts(bundle, None) if artefact.precision == "fp32"]


# Closed loop


@pytest.fixture(scope="module")
def closed(bundle: Bundle, artefacts: list[Artefact]) -> BenchResult:
    return bench(bundle, artefacts, BenchPlan(threads=(1,), batches=(1, 4), seconds=4))


def test_every_configuration_is_measured(closed: BenchResult, artefacts: list[Artefact]) -> None:
    found = [(row.artefact, row.threads, row.batch, row.scenario) for row in closed.document.reports]
    assert found == [(one.name, 1, batch, "closed-loop") for one in artefacts for batch in (1, 4)]


def test_figures_follow_from_the_samples(closed: BenchResult) -> None:
    for index, row in enumerate(closed.document.reports):
        samples = closed.samples[index]
        assert row.samples == len(samples.total_ms) >= 10
        assert row.p50_ms == np.percentile(samples.total_ms, 50, method="inverted_cdf")
        assert (row.p90_ms is None) == (row.samples < 64)
        assert row.p90_ms in (None, np.percentile(samples.total_ms, 90, method="inverted_cdf"))
        assert (row.p99_ms is None) == (row.samples < 662)
        assert row.images_per_s == pytest.approx(1e3 * row.batch / samples.total_ms.mean())
        assert row.intervals["p50"].low_ms <= row.p50_ms <= row.intervals["p50"].high_ms


def test_stages_add_up_to_each_request(closed: BenchResult) -> None:
    for samples in closed.samples.values():
        assert tuple(samples.stages_ms) == STAGES
        stages = np.sum(list(samples.stages_ms.values()), axis=0)
        assert np.all(stages <= samples.total_ms)
        # What is left is the clock's own time and Python's between the stages.
        assert np.median(samples.total_ms - stages) < 0.1 * np.median(samples.total_ms)


def test_machine_and_memory_are_told(closed: BenchResult) -> None:
    assert closed.document.device["cpu"]
    # The watch sees all that was measured.
    assert (
        closed.document.conditions["seconds"] > sum(each.total_ms.sum() for each in closed.samples.values()) / 1e3 > 1
    )
    assert all(20 < (row.memory_peak_mb or 0) < 2000 for row in closed.document.reports)


def test_engine_in_use_gets_eight_times_the_time(bundle: Bundle, artefacts: list[Artefact]) -> None:
    with open_subjects(bundle, configurations(artefacts[:1], [1], [1, 4]), DEFAULT_SETTINGS) as subjects:
        main, other = measure_closed_loop(subjects, seconds=2)
    assert (len(main.bursts), len(other.bursts)) == (12, 4)
    ratio = main.rows()[:, 0].sum() / other.rows()[:, 0].sum()
    assert 3 < ratio < 20


def test_counted_joules_are_those_of_the_turns(bundle: Bundle, artefacts: list[Artefact]) -> None:
    class Steady:
        """Five joules with each look."""

        source = "test"

        def __init__(self) -> None:
            self.total = 0.0

        def joules(self) -> float:
            self.total += 5
            return self.total

    with open_subjects(bundle, configurations(artefacts[:1], [1], [4]), DEFAULT_SETTINGS) as subjects:
        (found,) = measure_closed_loop(subjects, seconds=0.5, meter=Steady())  # type: ignore[arg-type]
    assert found.joules == 5 * len(found.bursts)
    assert report_of(found, "").joules_per_image == found.joules / (4 * found.samples)


# Other scenarios


@pytest.fixture(scope="module")
def scenarios(bundle: Bundle, artefacts: list[Artefact]) -> dict[str, LatencyReport]:
    plan = BenchPlan(
        threads=(1,), batches=(1,), scenarios=("open-loop", *SCENARIOS), seconds=1.0, rate=100.0, memory=False
    )
    return {row.scenario: row for row in bench(bundle, artefacts[:1], plan).document.reports}


def test_open_loop_offers_what_was_asked_for(scenarios: dict[str, LatencyReport]) -> None:
    row = scenarios["open-loop"]
    assert (row.samples, row.details["offered_per_s"]) == (100, 100)
    assert row.images_per_s == pytest.approx(100, rel=0.5)


def test_more_than_can_be_answered_queues_and_is_told(bundle: Bundle, artefacts: list[Artefact]) -> None:
    plan = BenchPlan(threads=(1,), batches=(1,), scenarios=("open-loop",), seconds=0.2, rate=5000.0, memory=False)
    (row,) = bench(bundle, artefacts[:1], plan).document.reports
    assert row.details["overloaded"] == 1
    assert row.details["waited_max_ms"] > 20 * sum(row.stages_ms.values())
    assert row.p90_ms is not None
    # The last ones waited for all before them; by how much more is another matter on a machine that stood still meanwhile.
    assert row.p90_ms > 1.05 * row.p50_ms


def test_loadgen_measures_every_scenario_of_mlperf(scenarios: dict[str, LatencyReport]) -> None:
    assert set(scenarios) == {"open-loop", *SCENARIOS}
    for name in SCENARIOS:
        row = scenarios[name]
        assert row.images_per_s > 0
        assert row.details["compliant"] == 0, "a second is no official duration"
        assert row.details["loadgen_p90_ms"] > 0
    # Our samples are LoadGen's, but for its own work.
    single = scenarios["mlperf-single-stream"]
    assert single.p90_ms == pytest.approx(single.details["loadgen_p90_ms"], rel=0.3)


@pytest.mark.parametrize("text", ["", "Result is : MAYBE", "90.00 percentile latency (ns) : soon", "\0" * 50])
def test_summary_that_says_nothing_gives_nothing(text: str) -> None:
    assert parse_summary(text) == {}


@pytest.mark.parametrize("failure", [BackendError("the engine broke"), MemoryError("no memory"), TypeError("odd")])
def test_whatever_fails_under_loadgen_is_raised(
    bundle: Bundle, artefacts: list[Artefact], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    from edgewright.benchmarks.loadgen import run_loadgen
    from edgewright.runtime.classifier import Classifier

    def broken(self: Classifier, pixels: Any, clock: Any = None) -> Any:
        raise failure

    with open_subjects(bundle, configurations(artefacts[:1], [1], [1]), DEFAULT_SETTINGS) as subjects:
        monkeypatch.setattr(Classifier, "run", broken)
        how: dict[str, Any] = {"seconds": 0.2, "rate": 10, "official": False, "recommended": ""}
        with pytest.raises(type(failure), match=str(failure)):
            run_loadgen(bundle, subjects[0], "mlperf-single-stream", **how)


def test_fast_ones_have_their_turns_over_the_whole_run(bundle: Bundle, artefacts: list[Artefact]) -> None:
    with open_subjects(bundle, configurations(artefacts[:1], [1], [1]), DEFAULT_SETTINGS) as subjects:
        (found,) = measure_closed_loop(subjects, seconds=12)
    assert len(found.bursts) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scenario": "open-loop", "batch": "8"}, "open-loop is for one picture at a time"),
        ({"scenario": "open-loop", "rate": 0.5, "seconds": 2}, "too few to measure"),
        ({"scenario": "mlperf-server", "samples": Path("all.parquet")}, "LoadGen keeps its own"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        bench_command(bundle.path, artefact="model.fp32", threads="1", **options)


@pytest.mark.parametrize("device", [None, "cpu", "CPU"])
def test_threads_are_those_of_the_cpu_however_it_is_written(artefacts: list[Artefact], device: str | None) -> None:
    assert [one.threads for one in configurations(artefacts[:1], (1, 2), (1,), device)] == [1, 2]


# Layers


def test_layers_tell_time_and_precision(bundle: Bundle) -> None:
    wanted = [one for one in runnable_artefacts(bundle, None) if one.precision in ("fp32", "int8")]
    tables = layer_tables(bundle, wanted, EngineSettings(threads=1))
    assert set(tables) == {one.name for one in wanted}
    for artefact in wanted:
        table = tables[artefact.name]
        assert len(table) > 20
        assert sum(one.share for one in table) == pytest.approx(1)
        assert [one.ms for one in table] == sorted((one.ms for one in table), reverse=True)
        shares = {kind: sum(one.share for one in table if one.precision == kind) for kind in ("fp32", "int8")}
        assert max(shares, key=lambda kind: shares[kind]) == artefact.executed, artefact.name


def test_profile_of_onnxruntime_is_medians_of_kernels() -> None:
    def event(name: str, dur: int, **args: Any) -> dict[str, Any]:
        return {"cat": "Node", "name": name, "dur": dur, "args": {"op_name": "Conv", **args}}

    events = [{"cat": "Session", "name": "model_run", "dur": 1}, event("a_fence_before", 1)]
    # The first five warm up.
    events += [
        event("a_kernel_time", dur, input_type_shape=[{"uint8": [1]}]) for dur in (900, 900, 900, 900, 900, 3, 5, 4)
    ]
    (layer,) = parse_onnxruntime_profile(json.dumps(events))
    assert (layer.layer, layer.kind, layer.precision, layer.ms) == ("a", "Conv", "int8", 0.004)


# The command


def test_command_writes_samples_and_a_report(
    bundle: Bundle, artefacts: list[Artefact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyarrow import parquet

    bench_command(
        bundle.path,
        artefact=artefacts[0].name,
        threads="1",
        batch="1",
        seconds=1,
        layers=True,
        samples=tmp_path / "samples.parquet",
        report=tmp_path / "report",
        json=True,
    )
    document = json.loads(capsys.readouterr().out)
    assert len(document["layers"][artefacts[0].name]) > 20
    saved = read_document(tmp_path / "report" / "bench.json")
    assert saved.as_json() == document
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    table = parquet.read_table(tmp_path / "samples.parquet")
    assert table.num_rows == document["reports"][0]["samples"]
    assert float(np.percentile(table["total_ms"], 50, method="inverted_cdf")) == document["reports"][0]["p50_ms"]


@pytest.mark.parametrize("text", ["0", "1,,2", "x", "1025", "-1", "1.5", "", "９", "1" * 30])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--threads .*: expected numbers from 1 to 1024"):
        parse_counts(text, "threads", 1024)


def test_numbers_come_sorted_and_once() -> None:
    assert parse_counts("8, 1,8", "batch", 1024) == (1, 8)


def test_unknown_scenario_is_refused() -> None:
    assert parse_scenarios("open-loop,closed-loop") == ("closed-loop", "open-loop")
    with pytest.raises(
        UsageError, match=r"no scenario 'fast'\. There are: closed-loop, open-loop, mlperf-single-stream"
    ):
        parse_scenarios("closed-loop,fast")


def test_samples_of_loadgen_alone_are_none(closed: BenchResult, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There are no samples"):
        write_samples(tmp_path / "none.parquet", BenchResult(closed.document, {}))
    assert not list(tmp_path.iterdir())


def test_memory_of_what_does_not_load_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="'nothing' could not be loaded on its own"):
        artefact_memory_mb(bundle.path, "nothing", None)


@pytest.mark.parametrize("option", ["report", "samples"])
def test_place_that_cannot_be_written_is_told_before_the_work(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").write_text("a file, where a folder would have to be")
    target = tmp_path / "file" / {"report": "report", "samples": "all.parquet"}[option]
    with pytest.raises(OSError, match="file"):
        bench_command(bundle.path, **{option: target})
    assert "take turns" not in capsys.readouterr().err
