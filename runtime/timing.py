"""Latency of several things, measured in turn, so that a drift of the machine hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

__all__ = ["burst_latencies_ms", "interleaved_latencies_ms"]

_SETTLE = 3
"""Calls at the start of each burst that are not counted: the engine before may still have threads spinning."""


def burst_latencies_ms(call: Callable[[], object], seconds: float, least: int = 5) -> list[float]:
    """Call again and again for `seconds`, at least `least` times; milliseconds of each call after the first few."""
    for _ in range(_SETTLE):
        call()
    samples: list[float] = []
    end = perf_counter_ns() + int(seconds * 1e9)
    while True:
        start = perf_counter_ns()
        call()
        now = perf_counter_ns()
        samples.append((now - start) / 1e6)
        if now >= end and len(samples) >= least:
            return samples


def interleaved_latencies_ms(
    calls: Mapping[str, Callable[[], object]], *, seconds: float, rounds: int = 5
) -> dict[str, npt.NDArray[np.float64]]:
    """Time each of `calls` for about `seconds` in all, divided into bursts that take turns.

    Returns:
        Milliseconds per call, by name, every sample in the order it was taken.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name] += burst_latencies_ms(call, seconds / rounds)
    return {name: np.asarray(values) for name, values in samples.items()}
