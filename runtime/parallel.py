"""Work in threads with a bounded number in flight, results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["available_cores", "bounded_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of CPU cores this process may run on (affinity and containers counted, where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, in_flight: int
) -> Generator[Result, None, None]:
    """Like `map`, in `threads` threads, with at most `in_flight` items taken and not yet yielded.

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
