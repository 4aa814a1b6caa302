"""A bounded queue in front of engines: items are prepared, gathered into batches and run, each within its deadline.

Nothing here knows of HTTP, pictures or asyncio. Threads, because what takes the time (decoding, inference) releases the
interpreter's lock, and because an engine that hangs must cost one thread and not the server. Each engine has one thread,
which runs a batch when one is due and prepares items when none is: on a CPU there are then exactly as many busy threads
as engines, what was begun is finished before something new is begun, and an item usually stays in one thread from its
bytes to its result. `helpers` are threads that only prepare, for an engine that computes elsewhere (a GPU).

```
submit → arrived ──prepare──▶ ready ──batch──▶ engine → the ticket's future
         └── waiting, at most `queue` ──┘
```
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar, cast

__all__ = [
    "AbandonedError",
    "BatchRules",
    "DeadlineError",
    "MicroBatcher",
    "NotServingError",
    "QueueFullError",
    "Ticket",
]

Source = TypeVar("Source")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """As many items wait as may; try again later."""


class DeadlineError(Exception):
    """The deadline passed, in the queue or in the engine."""


class NotServingError(Exception):
    """The batcher is closed, or none of its engines answers any more."""


class AbandonedError(Exception):
    """Whoever asked has gone away."""


@dataclass(frozen=True)
class BatchRules:
    """How long and how many.

    Attributes:
        max_batch: Most items that an engine is given at once.
        max_delay_s: How long a prepared item may wait for others to fill its batch. 0: an engine that is free takes what
            is there.
        queue: Items that may wait, engines' current batches not counted. A request is admitted while fewer wait, with all
            of its items, so that one of any size is admitted by an idle server.
        deadline_s: From `submit` to the result. An engine that has been busy for longer counts as hung.
    """

    max_batch: int
    max_delay_s: float
    queue: int
    deadline_s: float


class Ticket(Generic[Result]):
    """One request. `future` gives its outcomes: in the order of its items, each a result or the exception it met.

    The future itself fails with a DeadlineError, a NotServingError or an AbandonedError, and is always done by its
    deadline. `waited_s` is the time until the last of its items went into an engine.
    """

    __slots__ = ("deadline", "future", "left", "outcomes", "settled", "submitted", "waited_s")

    def __init__(self, count: int, submitted: float, deadline: float) -> None:
        self.future: Future[list[Result | Exception]] = Future()
        # From now on only the batcher can end it: `future.cancel()` does nothing.
        self.future.set_running_or_notify_cancel()
        self.outcomes: list[Result | Exception | None] = [None] * count
        self.left = count
        self.settled = False
        self.submitted = submitted
        self.deadline = deadline
        self.waited_s = 0.0


class _Item(Generic[Source, Prepared, Result]):
    __slots__ = ("position", "prepared", "ready_at", "source", "ticket")

    def __init__(self, ticket: Ticket[Result], position: int, source: Source) -> None:
        self.ticket = ticket
        self.position = position
        self.source: Source | None = source
        self.prepared: Prepared | None = None
        self.ready_at = 0.0


class MicroBatcher(Generic[Source, Prepared, Result]):
    """See the module. Safe to call from any thread; `close` ends its threads."""

    def __init__(
        self,
        prepare: Callable[[Source], Prepared],
        engines: Sequence[Callable[[Sequence[Prepared]], Sequence[Result]]],
        rules: BatchRules,
        *,
        helpers: int = 0,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """Start the threads.

        Args:
            prepare: What becomes of an item before it can be in a batch; an exception is that item's outcome.
            engines: Each gives a result per item of a batch, in order; called by one thread at a time.
            rules: Sizes and times.
            helpers: Threads that only prepare.
            on_batch: Told the size of each batch that went well.
        """
        self.rules = rules
        self._prepare = prepare
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._engines_wake = threading.Condition(self._lock)
        self._helpers_wake = threading.Condition(self._lock)
        self._watch_wake = threading.Condition(self._lock)
        self._all_done = threading.Condition(self._lock)
        self._arrived: deque[_Item[Source, Prepared, Result]] = deque()
        self._ready: deque[_Item[Source, Prepared, Result]] = deque()
        self._waiting = 0
        self._idle_helpers = 0
        self._open: dict[Ticket[Result], None] = {}
        self._next_look = float("inf")
        self._busy_since: dict[int, float] = {}
        self._engine_count = len(engines)
        self._closing = self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, args=(number, engine), name=f"engine-{number}", daemon=True)
            for number, engine in enumerate(engines)
        ]
        self._threads += [
            threading.Thread(target=self._work, args=(number, None), name=f"helper-{number}", daemon=True)
            for number in range(len(engines), len(engines) + helpers)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="deadlines", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that wait for an engine."""
        return self._waiting

    @property
    def running(self) -> int:
        """Requests that were admitted and have no answer yet."""
        return len(self._open)

    def hung(self) -> int:
        """How many engines have been busy with one thing for longer than a request may take."""
        limit = monotonic() - self.rules.deadline_s
        with self._lock:
            return sum(since < limit for number, since in self._busy_since.items() if number < self._engine_count)

    def check(self) -> None:
        """Whether `submit` would refuse, known at once.

        Raises:
            NotServingError: closing, or every engine hangs.
            QueueFullError: as many items wait as may.
        """
        if self._closing:
            raise NotServingError("The model is being closed.")
        if self._busy_since and self.hung() == self._engine_count:
            raise NotServingError("The engine does not answer.")
        if self._waiting >= self.rules.queue:
            raise QueueFullError(f"{self._waiting} pictures wait already; at most {self.rules.queue} may.")

    def submit(self, sources: Sequence[Source], deadline_s: float | None = None) -> Ticket[Result]:
        """Queue the items of one request.

        Args:
            sources: At least one.
            deadline_s: Seconds from now; at most, and by default, that of the rules.

        Raises:
            NotServingError, QueueFullError: see `check`.
        """
        if not sources:
            raise ValueError("a request without items")
        self.check()
        now = monotonic()
        seconds = self.rules.deadline_s if deadline_s is None else min(deadline_s, self.rules.deadline_s)
        ticket: Ticket[Result] = Ticket(len(sources), now, now + seconds)
        with self._lock:
            if self._closing:
                raise NotServingError("The model is being closed.")
            self._open[ticket] = None
            self._waiting += len(sources)
            for position, source in enumerate(sources):
                self._arrived.append(_Item(ticket, position, source))
            helped = min(self._idle_helpers, len(sources))
            self._idle_helpers -= helped
            self._helpers_wake.notify(helped)
            self._engines_wake.notify(len(sources) - helped)
            if ticket.deadline < self._next_look:
                self._watch_wake.notify()
        return ticket

    def cancel(self, ticket: Ticket[Result]) -> None:
        """Nobody waits for this one any more: what of it is still in the queue is dropped."""
        with self._lock:
            settled = self._settle(ticket)
        if settled:
            ticket.future.set_exception(AbandonedError("The client has gone away."))

    def close(self, timeout_s: float) -> bool:
        """Admit nothing more, finish what was admitted for at most `timeout_s`, then end the threads.

        What is left then fails with a NotServingError.

        Returns:
            Whether everything was finished and every thread ended; a thread that hangs in an engine is left behind.
        """
        end = monotonic() + timeout_s
        with self._lock:
            self._closing = True
            self._engines_wake.notify_all()  # a batch that is not full need not wait for more
            while self._open and (left := end - monotonic()) > 0:
                self._all_done.wait(left)
            lost = list(self._open)
            for ticket in lost:
                self._settle(ticket)
            self._stopping = True
            for condition in (self._engines_wake, self._helpers_wake, self._watch_wake):
                condition.notify_all()
        for ticket in lost:
            ticket.future.set_exception(NotServingError("The server was stopped before this request was finished."))
        for thread in self._threads:
            thread.join(max(0.1, end - monotonic()) if not lost else 0.1)
        return not lost and not any(thread.is_alive() for thread in self._threads)

    def _settle(self, ticket: Ticket[Result]) -> bool:
        """Mark a ticket as answered and take its items out of the queue; False if it was answered already.

        Called with the lock held; the future is set by the caller, without it.
        """
        if ticket.settled:
            return False
        ticket.settled = True
        del self._open[ticket]
        if ticket.left:
            for queue in (self._arrived, self._ready):
                kept = [item for item in queue if item.ticket is not ticket]
                self._waiting -= len(queue) - len(kept)
                queue.clear()
                queue.extend(kept)
        if not self._open:
            self._all_done.notify_all()
        return True

    def _work(self, number: int, engine: Callable[[Sequence[Prepared]], Sequence[Result]] | None) -> None:
        while True:
            work = self._next(number, engine is not None)
            if work is None:
                return
            if isinstance(work, list):
                assert engine is not None
                self._run(engine, work)
            else:
                self._make_ready(work, has_engine=engine is not None)

    def _next(
        self, number: int, has_engine: bool
    ) -> list[_Item[Source, Prepared, Result]] | _Item[Source, Prepared, Result] | None:
        """A batch to run (a list), an item to prepare, or None when all is over."""
        with self._lock:
            self._busy_since.pop(number, None)
            while True:
                now = monotonic()
                if has_engine and self._due(now):
                    self._busy_since[number] = now
                    return self._take_batch(now)
                if self._arrived:
                    self._busy_since[number] = now
                    return self._arrived.popleft()
                if self._stopping:
                    return None
                if has_engine:
                    rest = self._ready[0].ready_at + self.rules.max_delay_s - now if self._ready else None
                    self._engines_wake.wait(rest)
                else:
                    self._idle_helpers += 1
                    self._helpers_wake.wait()  # whoever notifies takes it off the idle ones

    def _due(self, now: float) -> bool:
        if not self._ready:
            return False
        full = len(self._ready) >= self.rules.max_batch
        return full or self._closing or now >= self._ready[0].ready_at + self.rules.max_delay_s

    def _take_batch(self, now: float) -> list[_Item[Source, Prepared, Result]]:
        batch = [self._ready.popleft() for _ in range(min(len(self._ready), self.rules.max_batch))]
        self._waiting -= len(batch)
        for item in batch:
            item.ticket.waited_s = now - item.ticket.submitted
        if self._ready:
            self._engines_wake.notify()
        return batch

    def _make_ready(self, item: _Item[Source, Prepared, Result], *, has_engine: bool) -> None:
        error = None
        try:
            item.prepared = self._prepare(cast("Source", item.source))
        except Exception as caught:
            error = caught
        item.source = None
        with self._lock:
            if item.ticket.settled or error is not None:
                self._waiting -= 1
            else:
                item.ready_at = monotonic()
                self._ready.append(item)
                if not has_engine:  # or else this very thread looks for a batch next
                    self._engines_wake.notify()
        if error is not None:
            self._finish([(item, error)])

    def _run(
        self,
        engine: Callable[[Sequence[Prepared]], Sequence[Result]],
        batch: list[_Item[Source, Prepared, Result]],
    ) -> None:
        try:
            results = engine([cast("Prepared", item.prepared) for item in batch])
            outcomes = list(zip(batch, results, strict=True))
        except Exception as error:
            if len(batch) > 1:
                # One of them may be to blame; the others get their results.
                for item in batch:
                    self._run(engine, [item])
                return
            self._finish([(batch[0], error)])
            return
        if self._on_batch is not None:
            self._on_batch(len(batch))
        self._finish(outcomes)

    def _finish(self, outcomes: Sequence[tuple[_Item[Source, Prepared, Result], Result | Exception]]) -> None:
        done: list[Ticket[Result]] = []
        with self._lock:
            for item, outcome in outcomes:
                ticket = item.ticket
                if ticket.settled:
                    continue
                ticket.outcomes[item.position] = outcome
                ticket.left -= 1
                if ticket.left == 0:
                    self._settle(ticket)
                    done.append(ticket)
        for ticket in done:
            ticket.future.set_result(cast("list[Result | Exception]", ticket.outcomes))

    def _watch(self) -> None:
        """Answer those whose deadline has passed, whatever the engines do."""
        while True:
            with self._lock:
                if self._stopping:
                    return
                now = monotonic()
                late = [ticket for ticket in self._open if ticket.deadline <= now]
                for ticket in late:
                    self._settle(ticket)
                self._next_look = min((ticket.deadline for ticket in self._open), default=float("inf"))
                if not late:
                    wait = None if self._next_look == float("inf") else self._next_look - now
                    self._watch_wake.wait(wait)
            for ticket in late:
                seconds = ticket.deadline - ticket.submitted
                ticket.future.set_exception(DeadlineError(f"No result within {seconds:.3g} s."))
