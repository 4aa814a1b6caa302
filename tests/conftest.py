"""Fixtures that more than one room uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARING = ("tests/export", "tests/runtime/tensorrt")
"""Folders whose files share what takes long to make: a run and its export, unpacked wheels."""


def _take_own_cores() -> None:
    """Keep a pytest-xdist worker on its share of the cores, and what it starts as well.

    Threads of several processes on the same cores wait for each other at every barrier; training then takes many times
    as long.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[int(worker.removeprefix("gw")) :: count] or cores
    os.sched_setaffinity(0, own)
    os.environ["OMP_NUM_THREADS"] = str(len(own))


_take_own_cores()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one file stay together, since they share fixtures; so do those of `SHARING`."""
    for item in items:
        file = item.path.relative_to(config.rootpath).as_posix()
        group = next((folder for folder in SHARING if file.startswith(folder)), file)
        item.add_marker(pytest.mark.xdist_group(group))


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
