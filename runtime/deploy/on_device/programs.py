"""Programs of the device."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import deque

from edgewright.runtime.errors import DeployError

__all__ = ["call", "tried"]

_LAST_LINES = 8


def tried(*command: str) -> str | None:
    """What a program says; None if it fails or is not there."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    return done.stdout.strip() if done.returncode == 0 else None


def call(command: list[str]) -> None:
    """Run a program whose output is for people; its last lines are told if it fails.

    Raises:
        DeployError: its status is not 0.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            last.append(line.strip())
    if process.returncode:
        said = " ".join(line for line in last if line)
        raise DeployError(
            f"`{' '.join(command[:4])} …` ended with status {process.returncode}: {said or 'it said nothing'}"
        )
