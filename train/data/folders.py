"""Datasets as people keep them: a folder per class, with or without splits above."""

from __future__ import annotations

import os
from pathlib import Path

from edgewright.runtime.errors import DataError
from edgewright.runtime.folders import SPLIT_NAMES, class_folders, files_in, is_picture, split_folders
from edgewright.runtime.images import EXTENSIONS
from edgewright.train.data.listing import UNSPLIT, Listing, Report, divide, refuse
from edgewright.train.data.samples import ImageData, Sample, Skipped

__all__ = ["list_folder", "read_folder"]


def read_folder(root: Path, *, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """Read `root/<split>/<class>/*` or `root/<class>/*`.

    With splits on disk, `train` is required, `val` (also `valid`, `validation`) is split off from it when missing,
    and a missing `test` stays missing. Without, both are split off. Splits are stratified and depend on `seed` only.

    Raises:
        DataError: no such folder, no pictures, an empty class, fewer than two classes, classes that differ per split.
    """
    listing = list_folder(root, refuse)
    return divide(listing, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)


def list_folder(root: Path, report: Report) -> Listing:
    """What lies in `root`, and in `report` what training could not use.

    Raises:
        DataError: no such folder.
    """
    if not root.is_dir():
        raise DataError(f"No folder at '{root}'. Expected a folder with train/, val/, test/, or one folder per class.")
    folders = {split: found for split in SPLIT_NAMES if (found := split_folders(root, split))}
    for found in folders.values():
        if len(found) > 1:
            report(f"'{root}' has both '{found[0].name}/' and '{found[1].name}/'. Expected one of them.")
    if folders and "train" not in folders:
        found = next(iter(folders.values()))
        report(f"'{root}' has '{found[0].name}/' but no 'train/'. Expected train/<class>/ with pictures.")
    folders = folders or {UNSPLIT: [root]}

    classes: list[str] = []
    skipped: list[Skipped] = []
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, parents in folders.items():
        samples: list[Sample] = []
        for parent in parents:
            samples += _read_split(parent, classes, root, skipped, report, first=not splits)
        splits[split] = tuple(samples)
    return Listing(str(root), tuple(classes), splits, tuple(skipped))


def _read_split(
    folder: Path, classes: list[str], root: Path, skipped: list[Skipped], report: Report, *, first: bool
) -> list[Sample]:
    """The samples in `folder`; new classes are added to `classes`, as only the `first` split may have."""
    directories = class_folders(folder)
    known = list(classes)
    if unknown := [name for name in directories if name not in known]:
        if not first:
            report(f"'{folder}' has the class '{unknown[0]}', which is not among: {', '.join(known[:50])}.")
        classes += unknown
    if first and len(classes) < 2:
        have = f"one class ('{classes[0]}')" if classes else "no class folders"
        report(f"'{folder}' has {have}. Expected at least two folders, each named after its class.")
    skipped += [
        Skipped(_name(str(path), root), "lies beside the class folders, so it has no class")
        for path in sorted(folder.iterdir())
        if path.is_file() and is_picture(path)
    ]
    samples: list[Sample] = []
    for label, name in enumerate(classes):
        if name not in directories:
            continue
        pictures, others = files_in(directories[name])
        skipped += [Skipped(_name(path, root), f"not a picture by its name ('{Path(path).suffix}')") for path in others]
        if not pictures and first:
            report(
                f"Class '{name}' is empty: no pictures in '{directories[name]}'. "
                f"Expected files ending in {', '.join(sorted(EXTENSIONS))}. Add pictures or remove the folder."
            )
        samples += [Sample(path, label, _name(path, root)) for path in pictures]
    if not samples:
        report(f"No pictures in '{folder}'. Expected <class>/ folders with pictures.")
    return samples


def _name(path: str, root: Path) -> str:
    """`path` below `root`, with POSIX separators."""
    return path[len(os.path.join(root, "")) :].replace(os.sep, "/")  # noqa: PTH118
