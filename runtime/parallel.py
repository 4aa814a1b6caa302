"""Cores, and what to do with them: threads of an engine, and work in threads with a bounded number in flight."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from edgewright.runtime.cgroup import cpu_quota

__all__ = ["Helper", "Turns", "available_cores", "bounded_map", "threads_per_stream"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of CPU cores this process may use: affinity and a container's share of CPU time counted, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def threads_per_stream(threads: int | None, streams: int | None, cores: int | None = None) -> int:
    """Threads of one inference where none are told: the cores, shared among the inferences that are to run at once.

    One inference on all cores answers a single request soonest, so that is the default. For many requests at once as many
    streams as cores give more: with one thread each there are no barriers at which threads wait for each other. At those,
    a machine that is busy with other work besides loses most.

    Args:
        threads: What was asked for, if anything.
        streams: The same; None counts as one.
        cores: By default those available.
    """
    return threads or max(1, (cores or available_cores()) // (streams or 1))


class Helper:
    """A thread that takes over a part of its caller's work, if it is idle at that moment; several may call it.

    The lock can be taken again by the thread that holds it, so that a signal handler may close what it has interrupted.
    """

    def __init__(self) -> None:
        self._idle = threading.RLock()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="edgewright-helper")

    def share(self, mine: Callable[[], None], other: Callable[[], None]) -> None:
        """Do both and wait for both: `other` in the helper, or after `mine` if it is busy or closed."""
        if not self._idle.acquire(blocking=False):
            mine()
            other()
            return
        try:
            try:
                taken = None if self._pool is None else self._pool.submit(other)
            except RuntimeError:  # the interpreter is ending
                taken = None
            try:
                mine()
            finally:
                # Nothing may go on with what the caller takes for finished, or for given up.
                other() if taken is None else taken.result()
        finally:
            self._idle.release()

    def close(self) -> None:
        """End the thread. What is asked for afterwards is done by whoever asks."""
        with self._idle:
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.shutdown()


class Turns:
    """Lets `count` threads in at once, the others in the order of their coming (`with turns:`).

    `threading.Semaphore` lets whoever has just left in again before those that wait: of eight callers some then wait many
    times as long as others.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:  # interrupted; the turn may have come meanwhile
            with self._lock:
                if gate in self._waiting:
                    self._waiting.remove(gate)
                else:
                    self._pass_on()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._free += 1


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, in_flight: int
) -> Generator[Result, None, None]:
    """Like `map`, in `threads` threads, with at most `in_flight` items taken and not yet yielded.

    It keeps as many in flight as it may, for training and evaluation, which are to find the next batch ready;
    :func:`edgewright.runtime.pipeline.in_order` hands a result over first, for people and cameras, and bears interrupts.

    Memory therefore does not depend on how many items there are. Decoding with Pillow releases the interpreter lock,
    so threads are enough.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= in_flight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
