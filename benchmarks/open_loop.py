"""Open loop: requests arrive when they like, as people's do, whether or not the one before is answered.

A closed loop waits for each answer and so never sees a queue; the time that a user waits is that from the arrival on. Arrivals
are a Poisson process: their distances follow an exponential distribution.
"""

from __future__ import annotations

import time
from time import perf_counter

import numpy as np

from edgewright.benchmarks.closed_loop import latency_report
from edgewright.benchmarks.reports import STAGES, LatencyReport
from edgewright.benchmarks.subjects import Subject
from edgewright.runtime.errors import UsageError

__all__ = ["measure_open_loop"]

_BURSTS = 12
_SPUN_S = 1e-3
"""Sleep is not exact; the last millisecond before an arrival is waited for awake."""


def measure_open_loop(
    subject: Subject, *, rate: float, seconds: float, seed: int, recommended: str
) -> tuple[LatencyReport, np.ndarray]:
    """Give `subject` requests at `rate` a second, on average; one is answered at a time, the others wait.

    Returns:
        The report, whose times go from the arrival to the labels; rows float64 (samples, 7) as in a closed loop. Its details:
        "offered_per_s", pictures; "waited_p50_ms" and "waited_max_ms" in the queue; "overloaded", 1 if the last quarter
        waited longer than twice as long as the first and longer than ten requests take: the queue grows for ever. Then it
        ends after twice `seconds`, with those not answered left out.

    Raises:
        UsageError: so few requests that they say nothing.
    """
    batch = subject.configuration.batch
    if rate * seconds < 2 * _BURSTS:
        raise UsageError(
            f"{rate:g} requests a second for {seconds:g} s are too few to measure. Expected at least {2 * _BURSTS} in all."
        )
    random = np.random.default_rng(seed)
    rows: list[tuple[float, ...]] = []
    waits: list[float] = []
    due = started = perf_counter()
    for _ in range(int(rate * seconds)):
        due += float(random.exponential(1 / rate))
        _sleep_until(due)
        if perf_counter() > started + 2 * seconds and len(rows) >= 2 * _BURSTS:
            break
        begun = perf_counter()
        answered = subject.answer(subject.next_request())
        waits.append(1e3 * (begun - due))
        rows.append(((perf_counter() - due) * 1e3, *answered[1:]))
    elapsed = perf_counter() - started
    table, waited = np.asarray(rows), np.asarray(waits)
    quarter = len(waited) // 4
    first, last = float(np.median(waited[:quarter])), float(np.median(waited[-quarter:]))
    service = float(np.median(table[:, 1:].sum(axis=1)))
    report = latency_report(
        subject,
        np.array_split(table[:, 0], _BURSTS),
        recommended,
        "open-loop",
        images_per_s=len(rows) * batch / elapsed,
        stages_ms=dict(zip(STAGES, np.median(table[:, 1:], axis=0).tolist(), strict=True)),
        details={
            "offered_per_s": rate * batch,
            "waited_p50_ms": float(np.median(waited)),
            "waited_max_ms": float(waited.max()),
            "overloaded": float(last > 2 * first and last > 10 * service),
        },
    )
    return report, table


def _sleep_until(moment: float) -> None:
    while (left := moment - perf_counter()) > 0:
        if left > _SPUN_S:
            time.sleep(left - _SPUN_S)
