"""Killed without warning at any moment, and resumed, training ends with the bits that it would have ended with."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, assert_whole, command, resume

KILLS = 10
LONGEST_S = {"full": 3.0, "auto": 4.0}
"""How long after the work has begun a kill comes at the latest; the work itself takes longer."""


def killed(arguments: list[str], log: Path, rng: random.Random, longest_s: float) -> bool:
    """Run a command and kill it at a random moment; whether that came before its end."""
    with log.open("w") as stream:
        process = subprocess.Popen(arguments, stdout=stream, stderr=stream, env=ENVIRONMENT)
    try:
        if rng.random() < 0.2:
            # While it starts: imports, data, the folder.
            time.sleep(rng.uniform(0.5, 4.0))
        else:
            while process.poll() is None and "mobilenet_v3_small" not in log.read_text():
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, longest_s))
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()
            return False
        return True
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("strategy", ["full", "auto"])
def test_killed_ten_times_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Callable[[str], bytes], strategy: str
) -> None:
    rng = random.Random(strategy)
    kills = finished = 0
    while kills < KILLS:
        folder = tmp_path / f"run-{finished}"
        while kills < KILLS and not (folder / "run.json").exists():
            if folder.exists() and not (folder / "config.yaml").exists():
                # Killed before it had said what it is: nothing to resume.
                shutil.rmtree(folder)
            more = ["--resume"] if folder.exists() else []
            if killed(command(strategy, folder, *more), tmp_path / "log", rng, LONGEST_S[strategy]):
                kills += 1
            if folder.exists():
                assert_whole(folder)
        if (folder / "config.yaml").exists():
            done = resume(strategy, folder)
            assert done.returncode == 0, done.stderr
            assert (folder / "best.safetensors").read_bytes() == uninterrupted(strategy)
            assert not (folder / "last").exists()
            finished += 1
    assert finished
