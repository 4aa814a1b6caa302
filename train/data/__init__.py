"""Datasets: from a folder, a CSV file or a name to checked, labelled samples in splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewright.train.data.named import NAMES
    from edgewright.train.data.reading import DIGITS, list_data, picture_root, read_data
    from edgewright.train.data.samples import SPLITS, ImageData, Sample, Skipped

__all__ = ["DIGITS", "NAMES", "SPLITS", "ImageData", "Sample", "Skipped", "list_data", "picture_root", "read_data"]

_HOMES = {
    "named": ("NAMES",),
    "reading": ("DIGITS", "list_data", "picture_root", "read_data"),
    "samples": ("SPLITS", "ImageData", "Sample", "Skipped"),
}


def __getattr__(name: str) -> object:
    """Import on first use, so that `edgewright --help`, which needs the commands here, does not pay for Pillow."""
    for module, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
