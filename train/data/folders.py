"""Datasets as people keep them: a folder per class, with or without splits above."""

from __future__ import annotations

from pathlib import Path

from edgewright.runtime.errors import DataError
from edgewright.runtime.folders import SPLIT_NAMES, class_folders, is_picture, pictures_in, split_folder
from edgewright.runtime.images import EXTENSIONS
from edgewright.train.data.samples import ImageData, Sample, Skipped
from edgewright.train.data.splitting import split_off

__all__ = ["read_folder"]


def read_folder(root: Path, *, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """Read `root/<split>/<class>/*` or `root/<class>/*`.

    With splits on disk, `train` is required, `val` (also `valid`, `validation`) is split off from it when missing,
    and a missing `test` stays missing. Without, both are split off. Splits are stratified and depend on `seed` only.

    Raises:
        DataError: no such folder, no pictures, an empty class, fewer than two classes, classes that differ per split.
    """
    if not root.is_dir():
        raise DataError(f"No folder at '{root}'. Expected a folder with train/, val/, test/, or one folder per class.")
    folders = {split: split_folder(root, split) for split in SPLIT_NAMES}
    train_folder = folders["train"]
    if train_folder is None and (folders["val"] or folders["test"]):
        found = folders["val"] or folders["test"]
        assert found is not None
        raise DataError(f"'{root}' has '{found.name}/' but no 'train/'. Expected train/<class>/ with pictures.")

    class_root = train_folder or root
    classes = _class_names(class_root)
    skipped: list[Skipped] = []
    train = _read_split(class_root, classes, root, skipped, every_class=True)
    val: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    if train_folder is None:
        train, test = split_off(train, test_fraction, seed, classes)
    elif folders["test"]:
        test = _read_split(folders["test"], classes, root, skipped, every_class=False)
    if folders["val"]:
        val = _read_split(folders["val"], classes, root, skipped, every_class=False)
    else:
        # The fraction is of the whole, of which the test split is already gone.
        share = val_fraction / (1 - test_fraction) if train_folder is None else val_fraction
        train, val = split_off(train, share, seed + 1, classes)
    return ImageData(str(root), classes, {"train": train, "val": val, "test": test}, tuple(skipped))


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(class_folders(folder))
    if len(names) < 2:
        found = f"one class ('{names[0]}')" if names else "no class folders"
        raise DataError(f"'{folder}' has {found}. Expected at least two folders, each named after its class.")
    return names


def _read_split(
    folder: Path, classes: tuple[str, ...], root: Path, skipped: list[Skipped], *, every_class: bool
) -> tuple[Sample, ...]:
    directories = class_folders(folder, classes)
    skipped += [
        Skipped(path.relative_to(root).as_posix(), "lies beside the class folders, so it has no class")
        for path in sorted(folder.iterdir())
        if path.is_file() and is_picture(path)
    ]
    samples: list[Sample] = []
    for label, name in enumerate(classes):
        pictures = pictures_in(directories[name]) if name in directories else []
        if name in directories:
            skipped += _other_files(directories[name], root)
        if not pictures and every_class:
            raise DataError(
                f"Class '{name}' is empty: no pictures in '{directories[name]}'. "
                f"Expected files ending in {', '.join(sorted(EXTENSIONS))}. Add pictures or remove the folder."
            )
        samples += [Sample(path, label, path.relative_to(root).as_posix()) for path in pictures]
    if not samples:
        raise DataError(f"No pictures in '{folder}'. Expected <class>/ folders with pictures.")
    return tuple(samples)


def _other_files(folder: Path, root: Path) -> list[Skipped]:
    return [
        Skipped(path.relative_to(root).as_posix(), f"not a picture by its name ('{path.suffix}')")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_picture(path) and not path.name.startswith(".")
    ]
