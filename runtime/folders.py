"""Folders of pictures: a folder per class, below one folder per split or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgewright.runtime.errors import DataError
from edgewright.runtime.images import EXTENSIONS

__all__ = [
    "SPLIT_NAMES",
    "class_folders",
    "entries_of",
    "files_in",
    "is_picture",
    "names_picture",
    "pictures_in",
    "split_folder",
    "split_folders",
]

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Folder names that are taken for a split."""


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files (macOS leaves `._x.jpg`) are not."""
    return names_picture(path.name)


def names_picture(name: str) -> bool:
    """:func:`is_picture` for a name that is a string already, as directories give them."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")  # noqa: PTH122


def entries_of(folder: str) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """The files and folders in a folder, and whether each is a folder, in no order.

    What is hidden is left out, links to files are followed, links to folders are not, so that a walk ends and stays inside.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield entry, True
            elif entry.is_file():
                yield entry, False


def files_in(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of the (pictures, other files) at any depth below `folder`, sorted.

    What is hidden, and what lies in hidden folders (`.ipynb_checkpoints`), is no part of it. Strings, because a folder
    may hold millions of files, and read from the directories alone, without asking the disk about every file.
    """
    pictures: list[str] = []
    others: list[str] = []
    pending = [str(folder)]
    while pending:
        for entry, is_folder in entries_of(pending.pop()):
            if is_folder:
                pending.append(entry.path)
            else:
                (pictures if names_picture(entry.name) else others).append(entry.path)
    return sorted(pictures, key=_parts), sorted(others, key=_parts)


def _parts(path: str) -> list[str]:
    """What `Path` sorts by: 'a/z' before 'a-b/a'."""
    return path.split(os.sep)  # noqa: PTH206


def pictures_in(folder: Path) -> list[Path]:
    """Every picture below `folder`, sorted; see :func:`files_in`."""
    return [Path(path) for path in files_in(folder)[0]]


def split_folders(root: Path, split: str) -> list[Path]:
    """The folders of `split` (train, val or test) below `root`, under any of its names."""
    return [root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()]


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of `split` (train, val or test) below `root`, if there is one.

    Raises:
        DataError: there are two, such as `val` and `validation`.
    """
    found = split_folders(root, split)
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
