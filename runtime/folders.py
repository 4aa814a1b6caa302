"""Folders of pictures: a folder per class, below one folder per split or not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgewright.runtime.errors import DataError
from edgewright.runtime.images import EXTENSIONS

__all__ = ["SPLIT_NAMES", "class_folders", "is_picture", "pictures_in", "split_folder"]

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Folder names that are taken for a split."""


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files (macOS leaves `._x.jpg`) are not."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """Every picture below `folder`, sorted; what lies in hidden folders (`.ipynb_checkpoints`) is no part of it."""

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])

    return sorted(path for path in folder.rglob("*") if is_picture(path) and not hidden(path) and path.is_file())


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of `split` (train, val or test) below `root`, if there is one.

    Raises:
        DataError: there are two, such as `val` and `validation`.
    """
    found = [root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"'{root}' has both '{found[0].name}/' and '{found[1].name}/'. Expected one of them.")
    return found[0] if found else None


def class_folders(folder: Path, allowed: Iterable[str] | None = None) -> dict[str, Path]:
    """The class folders in `folder` by name, sorted.

    Raises:
        DataError: a folder is named after no class in `allowed`.
    """
    found = {
        entry.name: entry
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if allowed is not None:
        known = list(allowed)
        if unknown := [name for name in found if name not in known]:
            raise DataError(f"'{folder}' has the class '{unknown[0]}', which is not among: {', '.join(known[:50])}.")
    return found
