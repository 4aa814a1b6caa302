"""Work in threads: in order, bounded, and over when the consumer has had enough."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from edgewright.runtime.parallel import Helper, Turns, available_cores, bounded_map, threads_per_stream

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


@pytest.mark.parametrize(
    ("threads", "streams", "cores", "expected"),
    [
        # One request at a time gets all cores; several at once share them.
        *((None, None, cores, cores) for cores in (1, 2, 4, 8, 16)),
        (None, 1, 8, 8),
        (None, 2, 8, 4),
        (None, 8, 8, 1),
        (None, 3, 8, 2),
        (None, 16, 2, 1),
        # What was told is kept.
        (3, None, 8, 3),
        (4, 4, 2, 4),
    ],
)
def test_cores_are_shared_among_streams(threads: int | None, streams: int | None, cores: int, expected: int) -> None:
    assert threads_per_stream(threads, streams, cores) == expected


def test_cores_are_those_of_this_process() -> None:
    assert threads_per_stream(None, None) == available_cores()


def test_turns_let_no_more_in_than_allowed() -> None:
    turns, inside, most = Turns(3), [0], [0]
    lock = threading.Lock()

    def work(_: int) -> None:
        for _ in range(20):
            with turns:
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.0002)
                with lock:
                    inside[0] -= 1

    list(bounded_map(work, range(8), threads=8, in_flight=8))
    assert (inside[0], most[0]) == (0, 3)


def test_turns_are_taken_in_the_order_of_coming() -> None:
    turns, order = Turns(1), list[int]()

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        waiting = [threading.Thread(target=take, args=(number,)) for number in range(5)]
        for count, thread in enumerate(waiting, 1):
            thread.start()
            while len(turns._waiting) < count:
                time.sleep(0.001)
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert order == list(range(5))


def test_turn_that_fails_is_passed_on() -> None:
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    with turns:
        pass


@pytest.mark.parametrize("handed", [False, True], ids=["waiting", "just handed over"])
def test_interrupted_wait_loses_no_turn(handed: bool) -> None:
    turns = Turns(1)
    turns.__enter__()
    real = threading.Lock

    class InterruptedGate:
        def __init__(self) -> None:
            self.lock, self.waits = real(), 0

        def acquire(self) -> None:
            self.waits += 1
            if self.waits == 2:
                if handed:
                    turns.__exit__(None, None, None)
                raise KeyboardInterrupt
            self.lock.acquire()

        def release(self) -> None:
            self.lock.release()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "Lock", InterruptedGate)
        with pytest.raises(KeyboardInterrupt):
            turns.__enter__()
    if not handed:
        turns.__exit__(None, None, None)
    with turns:  # would wait for ever
        pass


# A helper for half of the work


def test_helper_works_beside_its_caller() -> None:
    helper, meeting = Helper(), threading.Barrier(2, timeout=20)
    helper.share(meeting.wait, meeting.wait)  # each waits for the other: one after the other they would never meet
    helper.close()


def test_busy_helper_leaves_the_work_to_the_caller() -> None:
    helper, busy, done = Helper(), threading.Event(), threading.Event()
    first = threading.Thread(target=lambda: helper.share(busy.set, lambda: done.wait(20) and None))
    first.start()
    busy.wait(20)
    order: list[str] = []
    helper.share(lambda: order.append("mine"), lambda: order.append(threading.current_thread().name))
    assert order == ["mine", threading.current_thread().name]
    done.set()
    first.join()
    helper.close()


def test_closed_helper_leaves_no_thread_and_no_work_undone() -> None:
    helper, order = Helper(), list[int]()
    helper.share(lambda: None, lambda: None)
    helper.close()
    helper.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgewright-helper")]
    helper.share(lambda: order.append(1), lambda: order.append(2))
    assert order == [1, 2]


@pytest.mark.parametrize("fails", ["mine", "other"])
def test_failure_of_either_half_is_told_when_both_have_ended(fails: str) -> None:
    helper, ended = Helper(), list[str]()

    def work(name: str) -> None:
        time.sleep(0.05)
        ended.append(name)
        if name == fails:
            raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError, match=fails):
        helper.share(lambda: work("mine"), lambda: work("other"))
    assert sorted(ended) == ["mine", "other"]
    helper.close()


def test_helper_does_without_its_thread_when_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    helper, order = Helper(), list[int]()

    def ending(*arguments: object) -> object:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(helper._pool, "submit", ending)
    helper.share(lambda: order.append(1), lambda: order.append(2))
    assert order == [1, 2]
    helper.close()
