"""A dataset as it lies on disk, before anything is split off or decoded.

Training refuses what it cannot use; `edgewright data check` wants to hear all of it. So a reader hands every problem to
a function: :func:`refuse` raises it, `list.append` collects it, and the reader goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from edgewright.runtime.errors import DataError
from edgewright.train.data.samples import SPLITS, ImageData, Sample, Skipped
from edgewright.train.data.splitting import split_off

__all__ = ["UNSPLIT", "Listing", "Report", "divide", "refuse"]

UNSPLIT = "all"
"""The one split of a dataset that has none yet."""

Report: TypeAlias = Callable[[str], None]


def refuse(problem: str) -> None:
    """Raise a problem as DataError."""
    raise DataError(problem)


@dataclass(frozen=True)
class Listing:
    """Classes and samples; `splits` has those that are there, or :data:`UNSPLIT` alone."""

    origin: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Sample, ...]]
    skipped: tuple[Skipped, ...] = ()


def divide(listing: Listing, *, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """The dataset with all of its splits, the missing ones taken from what is there, stratified, by `seed` alone.

    Without splits, `test` and `val` are taken from the whole. With splits, a missing `val` is taken from `train`, and a
    missing `test` stays missing.

    Raises:
        DataError: a class has too few pictures to be split.
    """
    splits = {split: listing.splits.get(split, ()) for split in SPLITS}
    share = val_fraction
    if UNSPLIT in listing.splits:
        rest, splits["test"] = split_off(listing.splits[UNSPLIT], test_fraction, seed, listing.classes)
        splits["train"] = rest
        # The fraction is of the whole, of which the test split is already gone.
        share = val_fraction / (1 - test_fraction)
    if "val" not in listing.splits:
        splits["train"], splits["val"] = split_off(splits["train"], share, seed + 1, listing.classes)
    return ImageData(listing.origin, listing.classes, splits, listing.skipped)
