"""The sides of a comparison: each does its work in a process of its own, in turns, so that neither disturbs the other.

Parent and side speak in lines of JSON. The parent writes the request, then an empty line for each further turn; the side
answers `{"turn": n}` at the end of each epoch and waits, and `{"result": ...}` or `{"error": ...}` at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import typer
from typing_extensions import Self

from edgewright.benchmarks.device import device_facts
from edgewright.runtime.console import warn
from edgewright.runtime.errors import EdgewrightError, UsageError
from edgewright.runtime.walking import walk_pictures

__all__ = [
    "ULTRALYTICS",
    "Side",
    "Turns",
    "default_data",
    "default_weights",
    "in_turns",
    "machine",
    "ours",
    "pictures_of",
    "run_script",
    "tutorial",
    "ultralytics",
    "work_in_turns",
]


SHARED_VARIABLE = "EDGEWRIGHT_SHARED"
ULTRALYTICS = "yolo11n-cls"
"""Its own classifier that is compared with: the smallest."""

_PACKAGES = ("torch", "torchvision")


def run_script(main: Callable[..., None]) -> None:
    """Run `main` as a command line; an EdgewrightError becomes one message and its exit status."""
    try:
        typer.run(main)
    except EdgewrightError as error:
        print(f"edgewright: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def default_data(given: Path | None) -> str:
    """`given`, or else the clothing photographs in the shared folder.

    Raises:
        UsageError: neither is there.
    """
    return str(given or _shared(Path("data") / "clothing", "--data DATA"))


def default_weights(given: str | None, backbone: str) -> str:
    """`given`, or else the ImageNet weights of `backbone` in the shared folder.

    Raises:
        UsageError: neither is there.
    """
    return given or str(_shared(Path("weights") / f"{backbone}-imagenet.pth", "--weights imagenet or PATH"))


def pictures_of(data: Path | None, count: int) -> list[str]:
    """`count` picture files below `data`, evenly spread over all that are there, or of the clothing photographs.

    Raises:
        UsageError: there is none.
    """
    root = default_data(data)
    files = list(walk_pictures(root))
    if not files:
        raise UsageError(f"No pictures in '{root}'. Expected JPEG files in it or in its folders.")
    return files[:: max(1, len(files) // count)][:count]


def _shared(part: Path, option: str) -> Path:
    folder = Path(os.environ.get(SHARED_VARIABLE) or Path("..") / "shared")
    if not (folder / part).exists():
        raise UsageError(
            f"Nothing at '{folder / part}', the default. Give {option}, or set {SHARED_VARIABLE} to a folder that has it."
        )
    return folder / part


def machine() -> dict[str, Any]:
    """What the figures were measured on. Call it before measuring: a busy machine is reported."""
    facts = device_facts()
    if facts.load_average is not None and facts.load_average > 0.5 * facts.cores:
        warn(f"the machine is busy (load {facts.load_average:.1f} on {facts.cores} cores): figures may be too low")
    document = asdict(facts)
    document["versions"] |= {name: metadata.version(name) for name in _PACKAGES}
    return document


class Side:
    """One side: a process that is started with its first turn.

    Attributes:
        name: What messages call it.
        result: What it found, once its last turn is over.
        turns: How often it handed over before the end.
    """

    def __init__(self, name: str, command: Sequence[str], request: Mapping[str, Any]) -> None:
        self.name = name
        self.result: dict[str, Any] = {}
        self.turns = 0
        self._command, self._request = list(command), dict(request)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            # Reads what is left and closes the pipes.
            self._process.communicate()

    def turn(self) -> bool:
        """Let it work until it hands over; False when it has finished.

        Raises:
            UsageError: it refused the request, or ended without a result; it has said why on stderr.
        """
        message = ""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            message = json.dumps(self._request)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{message}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            raise UsageError(f"{self.name}: ended with status {self._process.wait()} and without a result; see above.")
        event = json.loads(line)
        if "error" in event:
            raise UsageError(f"{self.name}: {event['error']}")
        if "result" in event:
            self.result = event["result"]
            self._process.wait()
            return False
        self.turns += 1
        return True

    def run(self) -> dict[str, Any]:
        """All its turns in a row; returns its result."""
        in_turns([self])
        return self.result


def in_turns(sides: Sequence[Side]) -> None:
    """Let the sides work by turns, an epoch each, until all have finished."""
    with ExitStack() as stack:
        working = [stack.enter_context(side) for side in sides]
        while working:
            working = [side for side in working if side.turn()]


def ours(name: str, **config: Any) -> Side:
    """`edgewright.train` with these fields of TrainConfig."""
    return Side(name, [sys.executable, "-m", "edgewright.benchmarks.peers.ours"], config)


def tutorial(name: str, **config: Any) -> Side:
    """The tutorial's loop with these fields of TutorialConfig."""
    return Side(name, [sys.executable, "-m", "edgewright.benchmarks.peers.tutorial"], config)


def ultralytics(python: Path, request: Mapping[str, Any]) -> Side:
    """`ultralytics_predict.py` with this interpreter, which has ultralytics."""
    script = str(Path(__file__).with_name("ultralytics_predict.py"))
    return Side(f"Ultralytics, {request['do']}", [str(python), "-W", "ignore", script], request)


class Turns:
    """In a side's process: its way to hand over.

    Attributes:
        waited_s: Time spent waiting for the other sides, which is no part of the work.
    """

    def __init__(self, stream: TextIO) -> None:
        self.waited_s = 0.0
        self._stream = stream
        self._count = 0

    def emit(self, event: Mapping[str, Any]) -> None:
        """Send one event to the parent."""
        print(json.dumps(event), file=self._stream, flush=True)

    def hand_over(self) -> None:
        """Let the others work; returns with the next turn."""
        self._count += 1
        started = perf_counter()
        self.emit({"turn": self._count})
        if not sys.stdin.readline():
            raise SystemExit("the parent has gone")
        self.waited_s += perf_counter() - started


def work_in_turns(work: Callable[[dict[str, Any], Turns], dict[str, Any]]) -> None:
    """Be a side: read the request, do `work`, send its result."""
    # What libraries print must not get between the events.
    turns, sys.stdout = Turns(sys.stdout), sys.stderr
    try:
        turns.emit({"result": work(json.loads(sys.stdin.readline()), turns)})
    except EdgewrightError as error:
        turns.emit({"error": str(error)})
        sys.exit(error.exit_status)
