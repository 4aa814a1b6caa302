"""Work in threads: in order, bounded, and over when the consumer has had enough."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from edgewright.runtime.parallel import available_cores, bounded_map

PATIENCE_S = 10
"""A test that would otherwise wait for ever fails after this."""


def slow_at_first(number: int) -> int:
    time.sleep(0.02 if number == 0 else 0)
    return number * 10


def worker_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")}


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(bounded_map(slow_at_first, range(20), threads=4, in_flight=8)) == list(range(0, 200, 10))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_every_item_gives_one_result(count: int) -> None:
    assert list(bounded_map(str, range(count), threads=2, in_flight=3)) == [str(number) for number in range(count)]


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_more_items_are_taken_ahead_than_allowed(in_flight: int) -> None:
    ahead = largest = 0

    def items() -> Iterator[int]:
        nonlocal ahead, largest
        for number in range(30):
            ahead += 1
            largest = max(largest, ahead)
            yield number

    for _ in bounded_map(abs, items(), threads=2, in_flight=in_flight):
        ahead -= 1
    assert largest == in_flight


def test_items_are_worked_on_at_the_same_time() -> None:
    # Each of the two waits for the other: one thread alone would break the barrier.
    barrier = threading.Barrier(2)
    arrivals = bounded_map(lambda _: barrier.wait(PATIENCE_S), range(2), threads=2, in_flight=2)
    assert sorted(arrivals) == [0, 1]


def test_no_more_threads_work_than_allowed() -> None:
    names = set(bounded_map(lambda _: threading.current_thread().name, range(50), threads=2, in_flight=10))
    assert len(names) <= 2


def test_exception_of_the_function_reaches_the_consumer_in_its_place() -> None:
    results = bounded_map(lambda number: 1 // (3 - number), range(10), threads=2, in_flight=4)
    assert list(itertools.islice(results, 3)) == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_exception_of_the_items_reaches_the_consumer() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(bounded_map(abs, items(), threads=2, in_flight=4))


def test_endless_items_can_be_left_at_any_time() -> None:
    before = worker_threads()
    results = bounded_map(abs, itertools.count(), threads=2, in_flight=4)
    assert isinstance(results, Iterator)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    results.close()  # type: ignore[attr-defined]
    assert worker_threads() <= before


def test_leaving_early_cancels_what_has_not_begun() -> None:
    begun: list[int] = []
    release = threading.Event()

    def wait_after_the_first(number: int) -> int:
        begun.append(number)
        if number > 0:
            release.wait(PATIENCE_S)
        return number

    results = bounded_map(wait_after_the_first, range(100), threads=1, in_flight=50)
    assert next(results) == 0
    threading.Timer(0.1, release.set).start()
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 2


def test_a_process_has_at_least_one_core() -> None:
    assert available_cores() >= 1
