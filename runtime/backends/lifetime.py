"""Runs in flight and closing: an engine's memory goes when the last run has ended, and no run begins afterwards."""

from __future__ import annotations

import threading
from types import TracebackType

from edgewright.runtime.errors import BackendError

__all__ = ["Lifetime"]


class Lifetime:
    """Surrounds each run (`with lifetime:`) and ends once.

    A thread has at most one run at a time. The lock can be taken again by the thread that holds it, and a thread does not
    wait for its own run, so that a signal handler may close what it has interrupted.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = threading.Condition()
        self._running: set[int] = set()
        self._open = True

    def __enter__(self) -> None:
        """Begin a run.

        Raises:
            BackendError: closed.
        """
        with self._state:
            if not self._open:
                raise BackendError(f"'{self._name}' is closed. Load it again.")
            self._running.add(threading.get_ident())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state:
            self._running.discard(threading.get_ident())
            if not self._open:
                self._state.notify_all()

    def end(self) -> bool:
        """Refuse new runs and wait for those in flight; True the first time.

        Whoever comes second waits as well, so that after `close` nothing runs, no matter who called it first.
        """
        own = {threading.get_ident()}
        with self._state:
            first, self._open = self._open, False
            self._state.wait_for(lambda: self._running <= own)
        return first
