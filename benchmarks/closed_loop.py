"""Closed loop: one request after the other, each from encoded bytes to labels, stages apart.

Subjects take turns in short bursts that are spread over the whole run, in alternating order, so that whatever the machine
does meanwhile hits all of them alike. Every measured sample counts; nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt

from edgewright.benchmarks.energy import EnergyMeter
from edgewright.benchmarks.reports import STAGES, LatencyReport, Scenario
from edgewright.benchmarks.statistics import fewest_samples, quantiles, settled
from edgewright.benchmarks.subjects import Subject

__all__ = ["Measurement", "measure_closed_loop", "report_of", "warm_up"]

_ROUNDS = 12
_EVERY = 3
"""A subject that is not a main one has a turn in each third round."""
_SPIN_DOWN = 2
"""Requests at the start of a turn that do not count: the engine before still spins, caches hold its data."""

_WINDOW = 10
_SETTLED = 0.05
_LONGEST_WARM_UP_S = 1.5
_ENOUGH = 4 * fewest_samples(99)


@dataclass
class Measurement:
    """What was measured of a subject.

    Attributes:
        subject: Which.
        bursts: Rows of milliseconds: in all, then of each stage; float64 (samples, 7) for each turn.
        joules: What the meter counted during its turns; None without one.
        settled: Whether its median had become steady before.
    """

    subject: Subject
    settled: bool
    bursts: list[npt.NDArray[np.float64]] = field(default_factory=list)
    joules: float | None = None

    @property
    def samples(self) -> int:
        """How many requests."""
        return sum(len(burst) for burst in self.bursts)

    def rows(self) -> npt.NDArray[np.float64]:
        """All samples, float64 (samples, 7)."""
        return np.concatenate(self.bursts)


def warm_up(subject: Subject) -> bool:
    """Answer requests until the median of ten differs by less than 5 % from that of the ten before; whether it came to that."""
    totals: list[float] = []
    end = perf_counter() + _LONGEST_WARM_UP_S
    while not settled(totals, _WINDOW, _SETTLED):
        if perf_counter() > end:
            return False
        totals.append(subject.answer(subject.next_request())[0])
    return True


def measure_closed_loop(
    subjects: Sequence[Subject],
    *,
    seconds: float,
    meter: EnergyMeter | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measurement]:
    """Measure `subjects` in turns.

    Args:
        subjects: Loaded.
        seconds: For all of them together, warm-up not counted. Those that are main get eight times as much each.
        meter: Of energy.
        progress: Told how many turns are done, of how many; what it raises ends the measurement.
    """
    found = [Measurement(subject, warm_up(subject)) for subject in subjects]
    weights = [8.0 if one.subject.configuration.main else 1.0 for one in found]
    turns = [_ROUNDS if weight > 1 or len(found) == 1 else _ROUNDS // _EVERY for weight in weights]
    lengths = [seconds * weight / sum(weights) / count for weight, count in zip(weights, turns, strict=True)]
    done = 0
    for number in range(_ROUNDS):
        order = list(range(len(found)))
        for index in order if number % 2 == 0 else reversed(order):
            # Those that have few turns have them spread over all rounds.
            if (number + index) % (_ROUNDS // turns[index]) != 0:
                continue
            # Fast ones have enough samples soon; they have their turns over the whole run all the same.
            _burst(found[index], lengths[index], -(-_ENOUGH // turns[index]), meter)
            done += 1
            progress(done, sum(turns))
    return found


def _burst(measurement: Measurement, seconds: float, most: int, meter: EnergyMeter | None) -> None:
    subject = measurement.subject
    begun = perf_counter()
    for _ in range(_SPIN_DOWN):
        subject.answer(subject.next_request())
    before = None if meter is None else meter.joules()
    rows = [subject.answer(subject.next_request())]
    while perf_counter() < begun + seconds and len(rows) < most:
        rows.append(subject.answer(subject.next_request()))
    if meter is not None and before is not None:
        measurement.joules = (measurement.joules or 0.0) + meter.joules() - before
    measurement.bursts.append(np.asarray(rows))


def report_of(measurement: Measurement, recommended: str, scenario: Scenario = "closed-loop") -> LatencyReport:
    """The figures of a closed loop."""
    rows, subject = measurement.rows(), measurement.subject
    totals = rows[:, 0]
    medians = np.median(rows[:, 1:], axis=0).tolist()
    pictures = len(totals) * subject.configuration.batch
    return latency_report(
        subject,
        [burst[:, 0] for burst in measurement.bursts],
        recommended,
        scenario,
        images_per_s=1e3 * pictures / float(totals.sum()),
        stages_ms=dict(zip(STAGES, medians, strict=True)),
        joules_per_image=None if measurement.joules is None else measurement.joules / pictures,
    )


def latency_report(
    subject: Subject,
    bursts: Sequence[npt.NDArray[np.float64]],
    recommended: str,
    scenario: Scenario,
    *,
    images_per_s: float,
    stages_ms: dict[str, float],
    joules_per_image: float | None = None,
    details: dict[str, float] | None = None,
) -> LatencyReport:
    """A report of samples in milliseconds, given in bursts, in the order of measuring."""
    values, intervals = quantiles(bursts)
    configuration, execution = subject.configuration, subject.classifier.execution
    artefact = configuration.artefact
    samples = np.concatenate(bursts)
    return LatencyReport(
        artefact=artefact.name,
        backend=artefact.backend,
        device=execution.device,
        provider=execution.provider,
        precision=artefact.precision,
        scenario=scenario,
        threads=execution.threads,
        batch=configuration.batch,
        samples=len(samples),
        # A median of few samples is still the best that can be said; that it has no interval says how little it is.
        p50_ms=float(np.median(samples)) if values[50] is None else values[50],
        p90_ms=values[90],
        p95_ms=values[95],
        p99_ms=values[99],
        intervals=intervals,
        images_per_s=images_per_s,
        stages_ms=stages_ms,
        size_bytes=artefact.size_bytes,
        top1=artefact.top1,
        drop=artefact.drop,
        recommended=artefact.name == recommended,
        joules_per_image=joules_per_image,
        details=details or {},
    )
