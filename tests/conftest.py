"""Fixtures that more than one room uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights that development machines have beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have the real data in '{folder}'")
        pytest.skip(f"needs the real data in '{folder}', which this machine does not have")
    return folder


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Makes a dataset on disk: `picture_folder({"train/cat": 5, "train/dog": 3})` writes 5 + 3 different small JPEGs."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "data"
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((16, 12)).save(root / folder / f"{number:02d}.jpg")
        return root

    return make
