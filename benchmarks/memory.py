"""How much memory an artefact takes: that of a process of its own which loads it and labels pictures.

    python -m edgewright.benchmarks.memory BUNDLE ARTEFACT DEVICE

prints "memory" and megabytes, or "memory unknown" where the system does not tell. A process that has several engines could not
tell whose it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgewright.benchmarks.conditions import peak_memory_mb
from edgewright.runtime.errors import BackendError

__all__ = ["artefact_memory_mb"]

_PICTURES = 10
_LONGEST_S = 300


def artefact_memory_mb(bundle: Path, artefact: str, device: str | None) -> float | None:
    """Largest resident memory, in MB, of a process that labels ten pictures with the artefact, Python itself included.

    Raises:
        BackendError: the process failed.
    """
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "edgewright.benchmarks.memory",
        str(bundle),
        artefact,
        device or "",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"'{artefact}' was not loaded on its own within {_LONGEST_S} s.") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"'{artefact}' could not be loaded on its own: {last}")
    # What an engine prints comes before.
    told = re.fullmatch(r"memory ([0-9.]+|unknown)", (done.stdout.strip().splitlines() or [""])[-1])
    return None if told is None or told[1] == "unknown" else float(told[1])


def _main(bundle: str, artefact: str, device: str) -> None:
    from edgewright.runtime.loading import load

    with load(bundle, artefact, device=device or None) as classifier:
        pictures = [classifier.bundle.read(vector.image) for vector in classifier.manifest.golden]
        for number in range(_PICTURES):
            classifier(pictures[number % len(pictures)])
    peak = peak_memory_mb()
    print("memory unknown" if peak is None else f"memory {peak:.1f}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
