"""Decode every picture once before work starts, so that a damaged one is named now and not in the middle of a night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgewright.runtime.console import track, warn
from edgewright.runtime.errors import DataError, ImageError
from edgewright.runtime.images import check_image
from edgewright.runtime.parallel import available_cores, bounded_map
from edgewright.train.data.samples import ImageData, Sample, Skipped

__all__ = ["readable", "without_damaged"]

_NAMED = 10
"""How many damaged files are named on the screen; a run's skipped.csv names all of them."""


def without_damaged(data: ImageData) -> ImageData:
    """`data` without the pictures that cannot be decoded, which are named, counted and kept in `skipped`.

    Raises:
        DataError: a class or a split has no picture left.
    """
    damaged = _damaged([sample for members in data.splits.values() for sample in members])
    splits = {
        split: tuple(sample for sample in members if sample.name not in damaged)
        for split, members in data.splits.items()
    }
    skipped = tuple(Skipped(name, why) for name, why in damaged.items())
    checked = replace(data, splits=splits, skipped=data.skipped + skipped)
    for split, members in data.splits.items():
        if members and not checked.splits[split]:
            raise DataError(f"No readable picture is left in the {split} split of '{data.origin}'.")
    for name, count in checked.counts("train").items():
        if count == 0:
            raise DataError(f"Class '{name}' has no readable picture left to train on in '{data.origin}'.")
    return checked


def readable(samples: Sequence[Sample]) -> list[Sample]:
    """Those of `samples` that can be decoded; the others are named on the screen."""
    damaged = _damaged(samples)
    return [sample for sample in samples if sample.name not in damaged]


def _damaged(samples: Sequence[Sample]) -> dict[str, str]:
    """Name and reason of every sample that cannot be decoded."""
    results = bounded_map(_damage, samples, threads=available_cores(), in_flight=64)
    found = {
        sample.name: why
        for sample, why in zip(samples, track(results, "checking pictures", len(samples)), strict=True)
        if why is not None
    }
    if found:
        warn(f"{len(found)} of {len(samples)} pictures cannot be read and are left out:")
        for name, why in list(found.items())[:_NAMED]:
            warn(f"  {name}: {why}")
        if len(found) > _NAMED:
            warn(f"  and {len(found) - _NAMED} more")
    return found


def _damage(sample: Sample) -> str | None:
    try:
        check_image(sample.source)
    except ImageError as error:
        return str(error)
    return None
