"""A small training as a command of its own, and what it leaves behind when nothing goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

RECIPE = ["digits", "--backbone", "mobilenet_v3_small", "--weights", "builtin", "--imgsz", "32", "--per-class", "12"]
OPTIONS = {
    "full": ["--strategy", "full", "--epochs", "4", "--batch", "8", "--checkpoint-s", "0.2", "--ema", "0.9"],
    "auto": ["--strategy", "auto", "--epochs", "1", "--batch", "16", "--checkpoint-s", "0.2", "--views", "1"],
}
MAIN = [sys.executable, "-m", "edgewright"]
# One thread: on a machine that does more than this, more of them would only wait for each other.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(strategy: str, folder: Path, *more: str) -> list[str]:
    return [*MAIN, "train", *RECIPE, *OPTIONS[strategy], "--precision", "fp32", "--out", str(folder), *more]


def resume(strategy: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(strategy, folder, "--resume"), capture_output=True, text=True, env=ENVIRONMENT, timeout=240
    )


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
    """The final weights of a strategy that nothing happened to, as bytes."""
    found: dict[str, bytes] = {}

    def weights(strategy: str) -> bytes:
        if strategy not in found:
            folder = tmp_path_factory.mktemp("uninterrupted") / strategy
            subprocess.run(command(strategy, folder), check=True, capture_output=True, env=ENVIRONMENT, timeout=240)
            found[strategy] = (folder / "best.safetensors").read_bytes()
        return found[strategy]

    return weights
