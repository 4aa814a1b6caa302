"""Latency: milliseconds, the first calls not counted, everything taking turns."""

from __future__ import annotations

from time import perf_counter, sleep

import numpy as np

from edgewright.runtime.timing import burst_latencies_ms, interleaved_latencies_ms


def two_milliseconds() -> None:
    sleep(0.002)


def test_figures_are_milliseconds() -> None:
    samples = burst_latencies_ms(two_milliseconds, 0.02)
    # Sleeping is never shorter; a busy machine may make it much longer.
    assert 2.0 <= min(samples) < 200


def test_burst_lasts_as_long_as_was_asked() -> None:
    start = perf_counter()
    burst_latencies_ms(two_milliseconds, 0.05)
    assert perf_counter() - start >= 0.05


def test_slow_call_is_still_measured_a_few_times() -> None:
    assert len(burst_latencies_ms(two_milliseconds, 0.0, least=4)) == 4


def test_first_calls_are_not_counted() -> None:
    calls: list[int] = []

    def slow_at_first() -> None:
        calls.append(len(calls))
        sleep(0.05 if len(calls) == 1 else 0)

    samples = burst_latencies_ms(slow_at_first, 0.0)
    assert len(calls) > len(samples)
    assert float(np.median(samples)) < 50


def test_every_call_has_its_samples() -> None:
    found = interleaved_latencies_ms({"a": two_milliseconds, "b": two_milliseconds}, seconds=0.02, rounds=2)
    assert {name: len(samples) >= 10 for name, samples in found.items()} == {"a": True, "b": True}


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    interleaved_latencies_ms(calls, seconds=0.0, rounds=3)
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns == ["a", "b"] * 3


def test_every_sample_is_kept_in_order() -> None:
    lengths = iter([0.0] * 3 + [0.001, 0.004, 0.002, 0.006, 0.003])
    found = interleaved_latencies_ms({"a": lambda: sleep(next(lengths))}, seconds=0.0, rounds=1)["a"]
    assert (found >= [1, 4, 2, 6, 3]).all()
