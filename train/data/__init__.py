"""Datasets: from a folder or a name to checked, labelled samples in splits."""

from __future__ import annotations

from pathlib import Path

from edgewright.train.data.digits import read_digits
from edgewright.train.data.folders import read_folder
from edgewright.train.data.samples import SPLITS, ImageData, Sample, Skipped

__all__ = ["SPLITS", "ImageData", "Sample", "Skipped", "read_data"]


def read_data(origin: str, *, seed: int, val_fraction: float = 0.15, test_fraction: float = 0.15) -> ImageData:
    """The dataset behind a name (`digits`) or a folder. A folder of that name wins.

    Raises:
        DataError: see :func:`edgewright.train.data.folders.read_folder`.
    """
    if origin == "digits" and not Path(origin).is_dir():
        return read_digits(seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    return read_folder(Path(origin).resolve(), seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
