"""A whole measurement of a bundle: what runs here, in the scenarios that are asked for, while the machine is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgewright.benchmarks.closed_loop import Measurement, measure_closed_loop, report_of
from edgewright.benchmarks.conditions import Watch
from edgewright.benchmarks.device import device_facts
from edgewright.benchmarks.document import BenchDocument, document_of
from edgewright.benchmarks.energy import open_energy_meter
from edgewright.benchmarks.loadgen import SCENARIOS, run_loadgen
from edgewright.benchmarks.memory import artefact_memory_mb
from edgewright.benchmarks.open_loop import measure_open_loop
from edgewright.benchmarks.reports import STAGES, LatencyReport, SampleSet, Scenario
from edgewright.benchmarks.subjects import configurations, open_subjects, usual_threads
from edgewright.runtime.backends import DEFAULT_SETTINGS, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.console import notice
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.tuned import manifest_sha256

__all__ = ["BATCHES", "BenchPlan", "BenchResult", "bench"]

BATCHES = (1, 8)
_UTILISATION = 0.5
"""Of what a closed loop answers, the share that an open loop is offered unless a rate is given."""
_FULLER = 1.3
"""Offline wants to be asked for more than can be answered in its time."""


@dataclass(frozen=True)
class BenchPlan:
    """What to measure.

    Attributes:
        threads: Numbers of threads on a CPU.
        batches: Numbers of pictures in one inference.
        scenarios: At least one. Others than the closed loop are for one picture at a time and most threads.
        seconds: For the closed loop of all configurations together, and for each configuration in each other scenario.
        rate: Pictures a second that arrive in the open loop and in MLPerf's Server; None: half of what a closed loop
            answers.
        official: MLPerf's own durations.
        memory: Also measure memory, in a process for each artefact.
        seed: Of the arrivals.
    """

    threads: Sequence[int] = field(default_factory=usual_threads)
    batches: Sequence[int] = BATCHES
    scenarios: Sequence[Scenario] = ("closed-loop",)
    seconds: float = 30.0
    rate: float | None = None
    official: bool = False
    memory: bool = True
    seed: int = 0


@dataclass(frozen=True)
class BenchResult:
    """What came out; `samples` by index into the document's reports, for the scenarios that are ours."""

    document: BenchDocument
    samples: Mapping[int, SampleSet]


def bench(
    bundle: Bundle,
    artefacts: Sequence[Artefact],
    plan: BenchPlan,
    settings: EngineSettings = DEFAULT_SETTINGS,
    progress: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Measure `artefacts` as `plan` says.

    Args:
        bundle: Whose golden pictures are used.
        artefacts: Those that run here.
        plan: What.
        settings: The device; threads are the plan's.
        progress: Told how many turns of the closed loop are done, of how many; what it raises ends the measurement.

    Raises:
        BundleError: the bundle has no pictures.
        BackendError: an engine failed.
        MissingExtraError: MLPerf's load generator is asked for and not installed.
    """
    facts = device_facts()
    wanted = configurations(artefacts, plan.threads, plan.batches, settings.device)
    if "closed-loop" not in plan.scenarios:
        wanted = [each for each in wanted if each.main]
    memory = {one.name: _memory(bundle, one, settings) for one in artefacts} if plan.memory else {}
    reports: list[LatencyReport] = []
    tables: list[npt.NDArray[np.float64] | None] = []
    with ExitStack() as stack:
        meter = open_energy_meter()
        if meter is not None:
            stack.enter_context(meter)
        subjects = stack.enter_context(open_subjects(bundle, wanted, settings))
        notice(f"{len(subjects)} configurations take turns for {plan.seconds:.0f} s, after warming up")
        watch = stack.enter_context(Watch())
        closed = measure_closed_loop(subjects, seconds=plan.seconds, meter=meter, progress=progress or _tell)
        if "closed-loop" in plan.scenarios:
            reports += [report_of(one, bundle.manifest.recommended) for one in closed]
            tables += [one.rows() for one in closed]
        for scenario in plan.scenarios:
            for one in closed if scenario != "closed-loop" else ():
                if one.subject.configuration.main:
                    report, rows = _other(bundle, one, scenario, plan)
                    reports.append(report)
                    tables.append(rows)
    conditions = asdict(watch.conditions)
    if unsteady := sorted(
        {
            one.subject.configuration.artefact.name
            for one in closed
            if one.subject.configuration.main and not one.settled
        }
    ):
        conditions["findings"] = [*conditions["findings"], f"Still changing after warm-up: {', '.join(unsteady)}."]
    document = document_of(
        bundle=bundle.manifest.name,
        bundle_sha256=manifest_sha256(bundle.manifest),
        device=facts,
        conditions=conditions,
        reports=[replace(report, memory_peak_mb=memory.get(report.artefact)) for report in reports],
    )
    return BenchResult(document, {index: _sample_set(rows) for index, rows in enumerate(tables) if rows is not None})


def _tell(done: int, total: int) -> None:
    # No bar: what draws it ten times a second would be measured as well.
    for quarter in (1, 2, 3, 4):
        if done == quarter * total // 4:
            notice(f"  {25 * quarter} %")


def _memory(bundle: Bundle, artefact: Artefact, settings: EngineSettings) -> float | None:
    return artefact_memory_mb(bundle.path, artefact.name, settings.device)


def _other(
    bundle: Bundle, closed: Measurement, scenario: Scenario, plan: BenchPlan
) -> tuple[LatencyReport, npt.NDArray[np.float64] | None]:
    subject = closed.subject
    recommended = bundle.manifest.recommended
    notice(f"{scenario}: {subject.configuration.artefact.name}")
    rows = closed.rows()
    if scenario == "open-loop":
        rate = plan.rate or _UTILISATION * 1e3 / float(np.mean(rows[:, 0]))
        return measure_open_loop(subject, rate=rate, seconds=plan.seconds, seed=plan.seed, recommended=recommended)
    assert scenario in SCENARIOS
    # The engine alone, which is what LoadGen asks.
    capacity = 1e3 / float(np.mean(rows[:, 1 + STAGES.index("inference")]))
    rate = _FULLER * capacity if scenario == "mlperf-offline" else plan.rate or _UTILISATION * capacity
    report = run_loadgen(
        bundle,
        subject,
        scenario,
        seconds=plan.seconds,
        rate=rate,
        official=plan.official,
        recommended=recommended,
    )
    return report, None


def _sample_set(rows: npt.NDArray[np.float64]) -> SampleSet:
    return SampleSet(rows[:, 0], {stage: rows[:, 1 + index] for index, stage in enumerate(STAGES)})


def quick_plan(artefacts: Sequence[Artefact], seconds_each: float) -> BenchPlan:
    """One picture at a time on all cores, without memory: what `quickstart` shows."""
    return BenchPlan(threads=(available_cores(),), batches=(1,), seconds=seconds_each * len(artefacts), memory=False)
