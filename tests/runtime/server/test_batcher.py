"""The micro-batcher alone: batches, places, deadlines, cancellation, engines that fail or hang, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.runtime.server.batcher import (
    AbandonedError,
    BatchRules,
    DeadlineError,
    MicroBatcher,
    NotServingError,
    QueueFullError,
)

Batcher = MicroBatcher[int, int, int]


class Gate:
    """An engine that doubles, and only while it is open; remembers its batches."""

    def __init__(self, opened: bool = True) -> None:
        self.event = threading.Event()
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        if opened:
            self.event.set()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self.entered.release()
        self.event.wait(20)
        return [2 * item for item in batch]


def rules(max_batch: int = 4, max_delay_s: float = 0.0, queue: int = 8, deadline_s: float = 20.0) -> BatchRules:
    return BatchRules(max_batch, max_delay_s, queue, deadline_s)


@contextmanager
def batching(
    *engines: Callable[[Sequence[int]], Sequence[int]],
    prepare: Callable[[int], int] = lambda item: item,
    helpers: int = 0,
    **others: Any,
) -> Iterator[Batcher]:
    batcher = MicroBatcher(prepare, engines, rules(**others), helpers=helpers)
    try:
        yield batcher
    finally:
        for engine in engines:
            if isinstance(engine, Gate):
                engine.event.set()
        batcher.close(5)


def result(future: Future[Any]) -> Any:
    return future.result(20)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_outcomes_come_in_the_order_of_the_items() -> None:
    with batching(Gate(), Gate()) as batcher:
        assert result(batcher.submit([1, 2, 3, 4, 5, 6, 7]).future) == [2, 4, 6, 8, 10, 12, 14]


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=20),
    max_batch=st.integers(1, 5),
    engines=st.integers(1, 3),
    helpers=st.integers(0, 2),
    max_delay_s=st.sampled_from([0.0, 0.002]),
)
def test_every_request_gets_its_own_results(
    requests: list[list[int]], max_batch: int, engines: int, helpers: int, max_delay_s: float
) -> None:
    gates = [Gate() for _ in range(engines)]
    with batching(*gates, helpers=helpers, max_batch=max_batch, max_delay_s=max_delay_s, queue=1000) as batcher:
        tickets = [batcher.submit(items) for items in requests]
        assert [result(ticket.future) for ticket in tickets] == [[2 * item for item in items] for items in requests]
        assert batcher.waiting == batcher.running == 0
    assert max(len(batch) for gate in gates for batch in gate.batches) <= max_batch


def test_batch_waits_for_others_until_it_is_full() -> None:
    gate = Gate()
    with batching(gate, max_batch=3, max_delay_s=10.0) as batcher:
        tickets = [batcher.submit([item]) for item in (1, 2, 3)]
        for ticket in tickets:
            result(ticket.future)
    assert gate.batches == [[1, 2, 3]]


def test_batch_that_is_not_full_waits_no_longer_than_it_may() -> None:
    gate = Gate()
    with batching(gate, max_batch=3, max_delay_s=0.05) as batcher:
        start = time.monotonic()
        assert result(batcher.submit([1, 2]).future) == [2, 4]
        assert time.monotonic() - start >= 0.05
    assert gate.batches == [[1, 2]]


def test_closing_does_not_wait_for_a_batch_to_fill() -> None:
    gate = Gate()
    with batching(gate, max_batch=3, max_delay_s=15.0) as batcher:
        ticket = batcher.submit([1])
        until(lambda: bool(batcher._ready))
        assert batcher.close(10)
        assert ticket.future.result(0) == [2]


def test_what_gathers_while_the_engine_works_is_one_batch() -> None:
    gate = Gate(opened=False)
    with batching(gate, helpers=1, max_batch=4) as batcher:
        first = batcher.submit([1])
        gate.entered.acquire(timeout=10)
        others = batcher.submit([2, 3, 4])
        until(lambda: len(batcher._ready) == 3)
        gate.event.set()
        assert (result(first.future), result(others.future)) == ([2], [4, 6, 8])
    assert gate.batches == [[1], [2, 3, 4]]


def test_full_queue_refuses() -> None:
    gate = Gate(opened=False)
    with batching(gate, max_batch=1, queue=2) as batcher:
        batcher.submit([1])
        gate.entered.acquire(timeout=10)
        batcher.submit([2, 3])
        with pytest.raises(QueueFullError, match="2 pictures wait already"):
            batcher.submit([4])
        with pytest.raises(QueueFullError):
            batcher.check()


def test_request_larger_than_the_queue_is_admitted_when_there_is_room() -> None:
    with batching(Gate(), queue=1) as batcher:
        assert result(batcher.submit(list(range(10))).future) == [2 * item for item in range(10)]


def test_deadline_answers_though_the_engine_hangs() -> None:
    gate = Gate(opened=False)
    with batching(gate, deadline_s=0.1) as batcher:
        with pytest.raises(DeadlineError, match=r"0\.1 s"):
            result(batcher.submit([1]).future)
        until(lambda: batcher.hung() == 1)
        with pytest.raises(NotServingError, match="does not answer"):
            batcher.submit([2])
        gate.event.set()
        until(lambda: batcher.hung() == 0)
        assert result(batcher.submit([3]).future) == [6]


def test_deadline_of_one_request_can_be_shorter() -> None:
    gate = Gate(opened=False)
    with batching(gate) as batcher:
        batcher.submit([1])
        gate.entered.acquire(timeout=10)
        with pytest.raises(DeadlineError):
            result(batcher.submit([2], deadline_s=0.05).future)
        assert batcher.waiting == 0


def test_one_hung_engine_leaves_the_other_serving() -> None:
    gate = Gate(opened=False)

    def hangs_on_seven(batch: Sequence[int]) -> Sequence[int]:
        return gate(batch) if 7 in batch else [2 * item for item in batch]

    with batching(hangs_on_seven, hangs_on_seven, max_batch=1, deadline_s=0.1) as batcher:
        with pytest.raises(DeadlineError):
            result(batcher.submit([7]).future)
        until(lambda: batcher.hung() == 1)
        assert result(batcher.submit([1]).future) == [2]
        gate.event.set()


def test_cancelled_request_leaves_the_queue_and_is_not_computed() -> None:
    gate = Gate(opened=False)
    with batching(gate, max_batch=1) as batcher:
        first = batcher.submit([1])
        gate.entered.acquire(timeout=10)
        gone = batcher.submit([2, 3])
        assert batcher.waiting == 2
        batcher.cancel(gone)
        assert batcher.waiting == 0
        with pytest.raises(AbandonedError):
            result(gone.future)
        gate.event.set()
        assert result(first.future) == [2]
    assert gate.batches == [[1]]


def test_cancelling_what_is_answered_changes_nothing() -> None:
    with batching(Gate()) as batcher:
        ticket = batcher.submit([1])
        assert result(ticket.future) == [2]
        batcher.cancel(ticket)
        assert result(ticket.future) == [2]


def test_item_that_cannot_be_prepared_is_that_item_s_outcome() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    with batching(Gate(), prepare=prepare) as batcher:
        one, two, three = result(batcher.submit([1, 2, 3]).future)
        assert (one, str(two), three) == (2, "two", 6)
        assert batcher.waiting == 0


def test_engine_that_fails_on_one_item_gives_the_others_their_results() -> None:
    def engine(batch: Sequence[int]) -> Sequence[int]:
        if 3 in batch:
            raise RuntimeError("three")
        return [2 * item for item in batch]

    with batching(engine, max_batch=4, max_delay_s=5.0) as batcher:
        outcomes = result(batcher.submit([1, 2, 3, 4]).future)
        assert [str(outcome) for outcome in outcomes] == ["2", "4", "three", "8"]
        assert result(batcher.submit([5, 6, 7, 8]).future) == [10, 12, 14, 16]


def test_engine_that_gives_too_few_results_is_an_error() -> None:
    with batching(lambda batch: [], max_batch=1) as batcher:
        (outcome,) = result(batcher.submit([1]).future)
        assert isinstance(outcome, ValueError)


def test_closing_finishes_what_was_admitted_and_refuses_more() -> None:
    gate = Gate(opened=False)
    with batching(gate, max_batch=1) as batcher:
        tickets = [batcher.submit([item]) for item in (1, 2, 3)]
        threading.Timer(0.1, gate.event.set).start()
        assert batcher.close(10)
        assert [ticket.future.result(0) for ticket in tickets] == [[2], [4], [6]]
        with pytest.raises(NotServingError):
            batcher.submit([4])


def test_closing_gives_up_on_an_engine_that_hangs() -> None:
    gate = Gate(opened=False)
    with batching(gate) as batcher:
        ticket = batcher.submit([1])
        gate.entered.acquire(timeout=10)
        assert not batcher.close(0.1)
        with pytest.raises(NotServingError, match="stopped before"):
            ticket.future.result(0)


def test_threads_end_with_it() -> None:
    before = threading.active_count()
    with batching(Gate(), Gate(), helpers=2):
        assert threading.active_count() == before + 5
    assert threading.active_count() == before


def test_future_cannot_be_cancelled_from_outside() -> None:
    gate = Gate(opened=False)
    with batching(gate) as batcher:
        ticket = batcher.submit([1])
        assert not ticket.future.cancel()
        gate.event.set()
        assert result(ticket.future) == [2]


def test_many_threads_at_once() -> None:
    gates = [Gate(), Gate()]
    wrong = []

    def ask(batcher: Batcher, number: int) -> None:
        for item in range(number, 2000, 8):
            try:
                if result(batcher.submit([item]).future) != [2 * item]:
                    wrong.append(item)
            except QueueFullError:
                wrong.append(item)

    with batching(*gates, queue=100) as batcher:
        threads = [threading.Thread(target=ask, args=(batcher, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert sum(len(batch) for gate in gates for batch in gate.batches) == 2000
