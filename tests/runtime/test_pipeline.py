"""Work in several threads: order, how far the source is read ahead, errors in their places, an early end."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.runtime.errors import UsageError
from edgewright.runtime.pipeline import in_order


def doubled(part: Sequence[int]) -> list[int]:
    time.sleep(random.random() / 1000)
    return [2 * item for item in part]


def workers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgewright-stream")]


class Counting:
    """Whole numbers without end; counts how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.taken += 1
            yield number


@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 5), st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_results_come_in_order_whatever_the_numbers(count: int, workers: int, batch: int, more: int) -> None:
    found = list(in_order(doubled, range(count), workers=workers, batch=batch, in_flight=batch + more))
    assert found == [2 * item for item in range(count)]


def test_work_gets_batches_and_the_rest() -> None:
    sizes: list[int] = []

    def sized(part: Sequence[int]) -> Sequence[int]:
        sizes.append(len(part))
        return part

    list(in_order(sized, range(11), workers=1, batch=4))
    assert sizes == [4, 4, 3]


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 1), (1, 5), (3, 3), (3, 7)])
def test_source_is_read_no_further_ahead_than_told(batch: int, in_flight: int) -> None:
    source = Counting()
    stream = in_order(doubled, source, workers=3, batch=batch, in_flight=in_flight)
    assert source.taken == 0
    for yielded in range(1, 100):
        next(stream)
        # What was just yielded is in nobody's hands any more but the caller's.
        assert source.taken - (yielded - 1) <= in_flight
    stream.close()


def test_default_is_bounded_as_well() -> None:
    source = Counting()
    stream = in_order(doubled, source, workers=2)
    next(stream)
    assert source.taken <= 8
    stream.close()


def test_one_in_flight_answers_before_it_takes_the_next() -> None:
    events: list[str] = []

    def asked() -> Iterator[int]:
        for number in range(3):
            events.append(f"take {number}")
            yield number

    for number in in_order(doubled, asked(), workers=2, in_flight=1):
        events.append(f"give {number // 2}")
    assert events == ["take 0", "give 0", "take 1", "give 1", "take 2", "give 2"]


def test_what_is_ready_does_not_wait_for_a_slow_source() -> None:
    first_given = threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        time.sleep(0.2)  # the first is ready long before the third is asked for
        yield 1
        assert first_given.is_set()
        yield 2

    for number in in_order(doubled, slow(), workers=2, in_flight=8):
        if number == 0:
            first_given.set()


def test_work_is_done_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet(part: Sequence[int]) -> Sequence[int]:
        meeting.wait()
        return part

    assert list(in_order(meet, range(9), workers=3)) == list(range(9))


def failing(part: Sequence[int]) -> Sequence[int]:
    time.sleep(0.02 if part[0] == 3 else 0)
    if part[0] == 5:
        raise RuntimeError("the fifth")
    return part


def test_error_of_work_comes_in_its_place() -> None:
    stream = in_order(failing, range(100), workers=4)
    assert list(itertools.islice(stream, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="the fifth"):
        next(stream)
    assert list(stream) == []
    assert workers_alive() == []


@pytest.mark.parametrize("batch", [1, 2])
def test_error_of_the_source_comes_after_all_results_before_it(batch: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("unplugged")

    stream = in_order(doubled, broken(), workers=2, batch=batch)
    assert list(itertools.islice(stream, 5)) == [0, 2, 4, 6, 8]
    with pytest.raises(OSError, match="unplugged"):
        next(stream)
    assert workers_alive() == []


def test_interrupt_in_the_source_waits_for_nothing() -> None:
    started = threading.Event()
    done: list[int] = []

    def slow(part: Sequence[int]) -> Sequence[int]:
        started.set()
        time.sleep(0.05)
        done.extend(part)
        return part

    def interrupted() -> Iterator[int]:
        yield from range(50)
        started.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_order(slow, interrupted(), workers=1, in_flight=100))
    assert workers_alive() == []
    assert len(done) < 10


def test_closing_ends_the_threads_and_what_was_not_begun() -> None:
    begun: list[int] = []

    def noted(part: Sequence[int]) -> Sequence[int]:
        begun.extend(part)
        time.sleep(0.01)
        return part

    stream = in_order(noted, itertools.count(), workers=2, in_flight=50)
    assert next(stream) == 0
    stream.close()
    assert workers_alive() == []
    count = len(begun)
    assert count < 50
    time.sleep(0.05)
    assert len(begun) == count


def test_stream_that_is_dropped_ends_the_threads() -> None:
    for number in in_order(doubled, itertools.count(), workers=2):
        if number >= 10:
            break
    assert workers_alive() == []


@pytest.mark.parametrize(
    ("workers", "batch", "in_flight"), [(0, 1, None), (1, 0, None), (1, 1, 0), (2, 4, 3), (-1, 1, None)]
)
def test_numbers_that_cannot_work_are_refused_at_once(workers: int, batch: int, in_flight: int | None) -> None:
    with pytest.raises(UsageError, match="Expected at least 1 worker"):
        in_order(doubled, range(3), workers=workers, batch=batch, in_flight=in_flight)


STORM = """
import random, signal, sys, threading, time
from edgewright.runtime.pipeline import in_order

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for trial in range(int(sys.argv[1])):
    def endless():
        number = 0
        while True:
            yield number
            number += 1
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.005))
    try:
        for number in in_order(lambda part: part, endless(), workers=2):
            pass
    except KeyboardInterrupt:
        interrupted += 1
deadline = time.monotonic() + 5
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(interrupted, threading.active_count())
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_interrupt_at_any_moment_ends_it() -> None:
    found = subprocess.run(
        [sys.executable, "-c", STORM, "400"], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.stdout.split() == ["400", "1"], found.stderr


LEFT = """
import itertools, time
from edgewright.runtime.pipeline import in_order
stream = in_order(lambda part: time.sleep(0.05) or part, itertools.count(), workers=2)
next(stream)
print("done")
"""


def test_stream_that_is_left_open_does_not_keep_the_program_from_ending() -> None:
    found = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")
