"""A server of ours in a process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edgewright.runtime.errors import UsageError

__all__ = ["own_server", "resident_mb"]


@contextlib.contextmanager
def own_server(*words: str) -> Iterator[tuple[str, int]]:
    """`edgewright WORDS --port 0 --json` until the context ends: its address and its process' number.

    Raises:
        UsageError: it ended before it served.
    """
    command = [sys.executable, "-W", "ignore", "-m", "edgewright", *words, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        try:
            assert process.stdout is not None
            text = ""
            # The document ends with the line that closes it; the stream stays open.
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                if not line:
                    raise UsageError(f"`edgewright {words[0]}` ended with status {process.wait()}; see above.")
                text += line
            yield json.loads(text)["url"], process.pid
        finally:
            process.terminate()


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process; None where there is no Linux to ask."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:")) / 1024
