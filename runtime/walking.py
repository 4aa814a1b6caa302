"""Every picture below a folder, in order, in memory that depends neither on how many there are nor on where."""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TypeAlias

from edgewright.runtime.folders import entries_of, names_picture

__all__ = ["walk_pictures"]

_IN_MEMORY = 50_000
"""Names of one folder that are sorted in memory; of more, sorted runs go to temporary files and are merged."""

_Entry: TypeAlias = "tuple[str, bool]"


def walk_pictures(folder: str, in_memory: int = _IN_MEMORY) -> Iterator[str]:
    """Paths of the pictures at any depth below `folder`, in the order of :func:`~edgewright.runtime.folders.pictures_in`.

    The same ones, too. A folder is listed when the walk comes to it.

    Raises:
        OSError: a folder cannot be read.
    """
    # Not recursive: a path may have more folders in it than Python has levels of calls.
    open_folders = [(folder, _sorted(_entries(folder), in_memory))]
    while open_folders:
        parent, entries = open_folders[-1]
        entry = next(entries, None)
        if entry is None:
            open_folders.pop()
            continue
        path = os.path.join(parent, entry[0])  # noqa: PTH118 - Path takes ten times as long
        if entry[1]:
            open_folders.append((path, _sorted(_entries(path), in_memory)))
        else:
            yield path


def _entries(folder: str) -> Iterator[_Entry]:
    """Names in a folder: (name, whether it is a folder) for each folder and picture, in no order."""
    for entry, is_folder in entries_of(folder):
        if is_folder or names_picture(entry.name):
            yield entry.name, is_folder


def _sorted(entries: Iterable[_Entry], in_memory: int) -> Iterator[_Entry]:
    """Sort with at most `in_memory` entries in memory at a time; the rest waits in files that nobody else sees."""
    entries = iter(entries)
    run = sorted(islice(entries, in_memory))
    if len(run) < in_memory:
        yield from run
        return
    with ExitStack() as stack:
        runs: list[Iterator[_Entry]] = []
        while run:
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            # JSON, because a name may hold a line break, or bytes that are no text.
            file.writelines(json.dumps(entry) + "\n" for entry in run)
            file.seek(0)
            runs.append((name, is_folder) for name, is_folder in map(json.loads, file))
            run = sorted(islice(entries, in_memory))
        yield from heapq.merge(*runs)
