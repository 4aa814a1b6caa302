"""A process that is killed just before a certain change to a folder."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"}


def kill_at_step(folder: str, number: int, log: str | None = None) -> None:
    """Before the `number`-th change to what is in `folder`, this process kills itself; all changes go to `log`.

    They are counted by Python's own events, so what libraries in other languages write is none.
    """
    steps = itertools.count(1)
    told = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "ctypes.dlsym" and arguments[1] == "renameat2":
            path = folder
        elif event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(folder):
            return
        step = next(steps)
        if told is not None:
            os.write(told, f"{step} {event} {path}\n".encode())
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
