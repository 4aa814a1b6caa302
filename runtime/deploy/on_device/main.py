"""Does what a request asks for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.runtime.deploy.on_device.environment import install, run
from edgewright.runtime.deploy.on_device.machine import probe
from edgewright.runtime.deploy.on_device.places import Request, root_of
from edgewright.runtime.deploy.on_device.service import serve
from edgewright.runtime.deploy.on_device.store import place, prepare, receive, state, switch, tidy
from edgewright.runtime.errors import DeployError

__all__ = ["ACTIONS", "main"]

_LOCK_WAIT_S = 20.0

ACTIONS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "probe": probe,
    "state": state,
    "prepare": prepare,
    "receive": receive,
    "install": install,
    "place": place,
    "run": run,
    "switch": switch,
    "serve": serve,
    "tidy": tidy,
}
_READING = ("probe", "state")


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One deployment at a time: two would take each other's halves for whole."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as stream:
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise DeployError(
                        "another deployment to this device is at work. Wait until it has ended."
                    ) from None
                time.sleep(0.1)
        yield


def _end_with_the_connection() -> None:
    """When the workstation is gone, whatever runs here for it ends: it would meet the next attempt."""

    def watch() -> None:
        while os.read(0, 65_536):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(request: Request) -> None:
    """Do what is asked for, and print what came of it."""
    _end_with_the_connection()
    action = request["action"]
    try:
        with contextlib.nullcontext() if action in _READING else _alone(root_of(request)):
            answer: dict[str, Any] = {"answer": ACTIONS[action](request)}
    except DeployError as error:
        answer = {"refused": str(error)}
    except OSError as error:
        answer = {"refused": f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"}
    print(json.dumps(answer), flush=True)
    # The watching thread still reads.
    os._exit(0)
