"""Killed without warning at any moment, and resumed, training ends with the bits that it would have ended with."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command, Start, assert_whole

KILLS = {"full": 6, "auto": 4}
LONGEST_S = {"full": 3.0, "auto": 4.0}
"""How long after the work has begun a kill comes at the latest; the work itself takes longer."""


def killed(training: Command, rng: random.Random, longest_s: float) -> bool:
    """Kill a training at a random moment; whether that came before its end."""
    try:
        if rng.random() < 0.2:
            # While it starts: data, the folder, the weights.
            time.sleep(rng.uniform(0.0, 0.5))
        else:
            while training.poll() is None and "mobilenet_v3_small" not in training.said:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, longest_s))
        if training.poll() is not None:
            assert training.poll() == 0, training.said
            return False
        return True
    finally:
        training.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["full", "auto"])
def test_killed_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, start: Start, uninterrupted: Callable[[str], bytes], strategy: str, faults: Any
) -> None:
    rng = random.Random(strategy)
    faults.tried("kill -9", f"train --strategy {strategy}", KILLS[strategy])
    # Dates must not matter to any of this.
    jumping = strategy == "full"
    if jumping:
        faults.tried("clock that jumps", "train --resume", KILLS[strategy])
    kills = finished = 0
    while kills < KILLS[strategy]:
        folder = tmp_path / f"run-{finished}"
        while kills < KILLS[strategy] and not (folder / "run.json").exists():
            if folder.exists() and not (folder / "config.yaml").exists():
                # Killed before it had said what it is: nothing to resume.
                shutil.rmtree(folder)
            more = ["--resume"] if folder.exists() else []
            if killed(start(strategy, folder, *more, jumping_clock=jumping), rng, LONGEST_S[strategy]):
                kills += 1
            if folder.exists():
                with faults.whole():
                    assert_whole(folder)
        if (folder / "config.yaml").exists():
            done = start(strategy, folder, "--resume", jumping_clock=jumping).done()
            assert done.returncode == 0, done.stderr
            assert (folder / "best.safetensors").read_bytes() == uninterrupted(strategy)
            assert not (folder / "last").exists()
            assert 0 < json.loads((folder / "run.json").read_text())["seconds"] < 600
            finished += 1
    assert finished
