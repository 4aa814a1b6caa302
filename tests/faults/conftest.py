"""Commands that are started by forking, a small training among them, and what they leave behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

RECIPE = [
    *("digits", "--backbone", "mobilenet_v3_small", "--weights", "builtin", "--imgsz", "32", "--per-class", "12"),
    *("--val-fraction", "0.05", "--test-fraction", "0.05"),
]
OPTIONS = {
    "full": ["--strategy", "full", "--epochs", "4", "--batch", "8", "--checkpoint-s", "0.2", "--ema", "0.9"],
    "auto": ["--strategy", "auto", "--epochs", "1", "--batch", "8", "--checkpoint-s", "0.2", "--views", "1"],
}
# One thread: on a machine that does more than this, more of them would only wait for each other.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LONGEST_S = 400.0


def options(strategy: str, folder: Path, *more: str) -> list[str]:
    """What follows `edgewright`."""
    return ["train", *RECIPE, *OPTIONS[strategy], "--precision", "fp32", "--out", str(folder), *more]


class Server:
    """`forking.py`, in a mount namespace of its own where the system allows that."""

    def __init__(self) -> None:
        unshare = shutil.which("unshare")
        self.mounts = (
            unshare is not None
            and subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode
            == 0
        )
        own_mounts = [str(unshare), "-rm"] if self.mounts else []
        self._process = subprocess.Popen(
            [*own_mounts, sys.executable, str(Path(__file__).with_name("forking.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            # Unbuffered, so that what can be read is what `select` sees.
            bufsize=0,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self.answer(LONGEST_S)

    def answer(self, seconds: float) -> dict[str, int]:
        """The next answer; none if it does not come in time."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return {}
        line = self._process.stdout.readline()
        assert line, "the process that starts trainings has ended"
        found: dict[str, int] = json.loads(line)
        return found

    def close(self) -> None:
        try:
            self._process.communicate(timeout=10)
        finally:
            self._process.kill()


class Command:
    """A command in a process of its own, begun.

    Args:
        server: What starts it.
        arguments: What follows `edgewright`.
        log: Where all goes that it says.
        file_limit: No file may get larger.
        environment: Variables that it has besides.
        jumping_clock: Each time it looks, the clock shows another day.
        steps_in: What it changes in this folder is written to `<log>.steps`.
        kill_at: Before this one of those changes it is killed.
        before: Commands that run before it, where its own mounts are.
        after: The same when it is over.
    """

    def __init__(
        self,
        server: Server,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        file_limit: int = 0,
        environment: Mapping[str, str] | None = None,
        jumping_clock: bool = False,
        steps_in: Path | None = None,
        kill_at: int = 0,
        before: Sequence[Sequence[str]] = (),
        after: Sequence[Sequence[str]] = (),
    ) -> None:
        self._server, self._log = server, log
        self._status: int | None = None
        request = {
            "arguments": [str(each) for each in arguments],
            "log": str(log),
            "file_limit": file_limit,
            "environment": dict(environment or {}),
            "jumping_clock": jumping_clock,
            "steps_in": "" if steps_in is None else str(steps_in),
            "kill_at": kill_at,
            "before": [list(command) for command in before],
            "after": [list(command) for command in after],
        }
        self._process = server.ask(request)["process"]

    @property
    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def poll(self, seconds: float = 0.0) -> int | None:
        """Its status, if it ends in that time."""
        if self._status is None:
            self._status = self._server.answer(seconds).get("status")
        return self._status

    def kill(self) -> None:
        """Without warning, unless it has ended."""
        if self.poll() is None:
            os.kill(self._process, signal.SIGKILL)
            assert self.poll(LONGEST_S) is not None

    def done(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        try:
            status = self.poll(LONGEST_S)
            if status is None:
                os.kill(self._process, signal.SIGUSR1)
                time.sleep(1)
            assert status is not None, self.said
            return subprocess.CompletedProcess([], status, "", self.said)
        finally:
            self.kill()


Start = Callable[..., Command]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not hasattr(os, "fork"):
        pytest.skip("needs a system that can fork")
    found = Server()
    yield found
    found.close()


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Start:
    """`run("tune", bundle)` begins a command; limits as of :class:`Command`."""

    def begin(*arguments: str | Path, **limits: Any) -> Command:
        return Command(server, arguments, tmp_path / "log", **limits)

    return begin


@pytest.fixture
def start(run: Start) -> Start:
    """`start("full", folder, "--resume")` begins a training."""

    def begin(strategy: str, folder: Path, *more: str, **limits: Any) -> Command:
        return run(*options(strategy, folder, *more), **limits)

    return begin


def refusal(done: subprocess.CompletedProcess[str], *reasons: str) -> str:
    """The one line of a command that gives up with status 2, which has one of these reasons."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgewright: ")]
    assert len(lines) == 1, done.stderr
    assert any(reason in lines[0] for reason in reasons), lines[0]
    return lines[0]


def temporary_files(folder: Path) -> list[Path]:
    """What is there for the time of writing only."""
    return [path for path in folder.rglob(".*") if ".new-" in path.name or ".old-" in path.name]


def assert_whole(folder: Path) -> None:
    """Every file that has its own name is complete; one that is being written has a temporary name."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".pt":
            assert "progress" in torch.load(path, weights_only=True), path
        elif path.suffix == ".safetensors":
            assert load_file(path), path
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())["data"] == "digits", path


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """The final weights of a strategy that nothing happened to, as bytes; from the command itself."""
    found: dict[str, bytes] = {}

    def weights(strategy: str) -> bytes:
        if strategy not in found:
            folder = tmp_path_factory.mktemp("uninterrupted") / strategy
            command = [sys.executable, "-m", "edgewright", *options(strategy, folder)]
            subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, timeout=LONGEST_S)
            found[strategy] = (folder / "best.safetensors").read_bytes()
        return found[strategy]

    return weights


OLDER = Path(__file__).with_name("older")
"""Bundles and manifests as earlier versions wrote them, never to be changed."""


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """A copy of a bundle with an ONNX and an OpenVINO artefact of 4 kB."""
    return Path(shutil.copytree(OLDER / "v1-colours", tmp_path / "bundle"))
