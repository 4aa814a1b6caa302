"""MLPerf's own load generator: scenarios SingleStream, MultiStream, Offline and Server.

LoadGen decides when which sample is asked for and keeps the time; what is measured is the engine, from the prepared tensor to
the logits, because MLPerf counts no preprocessing. By default runs are short and labelled non-compliant: a compliant one
takes `--mlperf`, the durations of MLPerf's inference rules (ten minutes for each scenario), its model and its data set. Ours
are never official results; what is compliant here is the run's length and number of queries.
"""

from __future__ import annotations

import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.benchmarks.closed_loop import latency_report
from edgewright.benchmarks.reports import LatencyReport, Scenario
from edgewright.benchmarks.subjects import Subject, golden_pictures
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.extras import require

__all__ = ["SCENARIOS", "run_loadgen"]

SCENARIOS: dict[Scenario, str] = {
    "mlperf-single-stream": "SingleStream",
    "mlperf-multi-stream": "MultiStream",
    "mlperf-offline": "Offline",
    "mlperf-server": "Server",
}

_OFFICIAL_S = 600
"""`min_duration` of MLPerf's inference rules since v1.1."""
_MULTI_STREAM = 8
"""Samples of a query in MultiStream."""
_BLOCKS = 12
_AFTER_FAILURE_S = 0.01


@dataclass
class _Sut:
    """The system under test: a thread that answers queries in the order of their coming.

    A query's latency is LoadGen's business; what is kept here, from its being issued to its last answer, is the same but for
    LoadGen's own work, and is there as single samples.
    """

    loadgen: Any
    subject: Subject
    tensors: Sequence[npt.NDArray[np.uint8]]
    latencies_ms: list[float] = field(default_factory=list)
    samples: int = 0
    failure: Exception | None = None
    queries: queue.SimpleQueue[tuple[list[Any], int] | None] = field(default_factory=queue.SimpleQueue)

    def issue(self, samples: list[Any]) -> None:
        self.queries.put((samples, perf_counter_ns()))

    def flush(self) -> None:
        """Nothing is held back."""

    def work(self) -> None:
        while (query := self.queries.get()) is not None:
            samples, issued = query
            # Only the first failure is told; LoadGen itself wants every query answered, or waits for ever.
            if self.failure is None:
                try:
                    self._answer(samples)
                    self.latencies_ms.append((perf_counter_ns() - issued) / 1e6)
                    self.samples += len(samples)
                except Exception as error:  # whatever it is, it is raised when LoadGen has ended
                    self.failure = error
            else:
                time.sleep(_AFTER_FAILURE_S)
            # No answer is looked at in performance mode, so none is handed over: no buffer has to outlive this call.
            self.loadgen.QuerySamplesComplete([self.loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples])

    def _answer(self, samples: list[Any]) -> None:
        batch = self.subject.configuration.batch
        for start in range(0, len(samples), batch):
            part = samples[start : start + batch]
            self.subject.classifier.run(np.stack([self.tensors[sample.index] for sample in part]))


def run_loadgen(
    bundle: Bundle,
    subject: Subject,
    scenario: Scenario,
    *,
    seconds: float,
    rate: float,
    official: bool,
    recommended: str,
) -> LatencyReport:
    """Run one of :data:`SCENARIOS`.

    Args:
        bundle: Its golden pictures are the samples.
        subject: Loaded and warm. Its batch is how many samples of a query go into the engine at once.
        scenario: A key of :data:`SCENARIOS`.
        seconds: At least so long, unless `official`.
        rate: Pictures a second: what Server asks for, and what Offline plans with.
        official: MLPerf's own durations and numbers of queries.
        recommended: By the bundle.

    Returns:
        The report; its details are LoadGen's own verdict: "valid", "compliant" (the duration is official), and what it
        counted, "loadgen_p90_ms", "loadgen_p99_ms", "loadgen_per_s".

    Raises:
        MissingExtraError: `mlcommons-loadgen` is not installed.
        Exception: what the engine failed with.
    """
    require("bench", "mlperf_loadgen")
    import mlperf_loadgen as loadgen

    tensors = [subject.classifier.prepare(picture)[0] for picture in golden_pictures(bundle)]
    sut = _Sut(loadgen, subject, tensors)
    settings = _settings(loadgen, scenario, seconds=seconds, rate=rate, official=official, count=len(tensors))
    worker = threading.Thread(target=sut.work, name="loadgen-sut", daemon=True)
    worker.start()
    with tempfile.TemporaryDirectory(prefix="edgewright-loadgen-") as folder:
        logs = loadgen.LogSettings()
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        logs.log_output, logs.enable_trace = output, False
        nothing: Callable[[list[int]], None] = lambda samples: None  # noqa: E731 - LoadGen wants to be told how to load
        made = loadgen.ConstructSUT(sut.issue, sut.flush)
        library = loadgen.ConstructQSL(len(tensors), len(tensors), nothing, nothing)
        try:
            loadgen.StartTestWithLogSettings(made, library, settings, logs)
        finally:
            sut.queries.put(None)
            worker.join()
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(made)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text(errors="replace")
    if sut.failure is not None:
        raise sut.failure
    latencies = np.asarray(sut.latencies_ms)
    found = parse_summary(summary)
    # LoadGen tells no rate where one query follows the other: it is what the latencies make it.
    one_by_one = 1e3 * sut.samples / float(latencies.sum())
    return latency_report(
        subject,
        np.array_split(latencies, min(_BLOCKS, len(latencies))),
        recommended,
        scenario,
        images_per_s=found.get("loadgen_per_s", one_by_one),
        stages_ms={},
        details={**found, "compliant": float(official)},
    )


def _settings(loadgen: Any, scenario: Scenario, *, seconds: float, rate: float, official: bool, count: int) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.performance_sample_count_override = count
    duration_ms = int(1000 * (_OFFICIAL_S if official else seconds))
    settings.min_duration_ms = duration_ms
    # A short run has few queries; LoadGen's early stopping then calls it invalid, and the report says so.
    settings.min_query_count = (24_576 if scenario == "mlperf-offline" else 100) if official else 1
    if not official:
        settings.max_duration_ms = 2 * duration_ms
    settings.single_stream_expected_latency_ns = int(1e9 / rate)
    settings.multi_stream_expected_latency_ns = int(_MULTI_STREAM * 1e9 / rate)
    settings.multi_stream_samples_per_query = _MULTI_STREAM
    settings.offline_expected_qps = rate
    settings.server_target_qps = rate
    settings.server_target_latency_ns = 15_000_000  # that of ResNet-50 in MLPerf's rules
    return settings


_NUMBER = r"([0-9][0-9.eE+]*)"
_LINES = {
    "loadgen_p90_ms": (rf"90\.00 percentile latency \(ns\)\s*: {_NUMBER}", 1e-6),
    "loadgen_p99_ms": (rf"99\.00 percentile latency \(ns\)\s*: {_NUMBER}", 1e-6),
    "loadgen_per_s": (rf"(?:Samples|Completed samples) per second\s*: {_NUMBER}", 1.0),
}


def parse_summary(text: str) -> dict[str, float]:
    """What LoadGen's `mlperf_log_summary.txt` says; what it does not say is left out."""
    found = {}
    for name, (pattern, scale) in _LINES.items():
        if match := re.search(pattern, text):
            found[name] = float(match[1]) * scale
    if match := re.search(r"Result is : (VALID|INVALID)", text):
        found["valid"] = float(match[1] == "VALID")
    return found
