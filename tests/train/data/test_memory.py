"""100,000 pictures must not need more memory than 1,000, but for their names."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from edgewright.train.data import read_data

MOST_BYTES = 450
"""Of one sample: its two names, here of 40 characters below a folder of about 100, and the object that holds them."""


def test_listed_picture_takes_little_memory(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(1000):
            (tmp_path / name / f"{number:032d}.jpg").touch()
    tracemalloc.start()
    try:
        data = read_data(str(tmp_path), seed=0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(members) for members in data.splits.values()) == 2000
    assert held / 2000 < MOST_BYTES
    assert peak / 2000 < 2 * MOST_BYTES
