"""What `predict` is given, as pictures: files, folders, lists, videos, cameras. Read as they are needed, never as a whole."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from edgewright.runtime.errors import UsageError
from edgewright.runtime.images import MAX_PIXELS
from edgewright.runtime.picture import Picture
from edgewright.runtime.video import camera_frames, is_camera, is_video, video_frames
from edgewright.runtime.walking import walk_pictures

__all__ = ["is_live", "pictures"]

STDIN = "-"
_LIST = "@"
_LONGEST_LINE = 64 * 1024
_CSV_COLUMN = "path"


def pictures(sources: Iterable[str | os.PathLike[str]], max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The pictures of all `sources`, one source after the other.

    | source            | gives                                                                                        |
    |-------------------|----------------------------------------------------------------------------------------------|
    | a folder          | the pictures in it and below, sorted: see :func:`~edgewright.runtime.walking.walk_pictures`    |
    | a video file      | its frames: see :func:`~edgewright.runtime.video.video_frames`                                 |
    | `0`, `camera:0`   | the frames of /dev/video0; a file of that name comes first                                    |
    | `@list.txt`       | what its lines name: files, folders, videos                                                   |
    | `@table.csv`      | what its column `path` names, from the CSV's folder, as for training                           |
    | `-`               | what the lines of standard input name                                                         |
    | anything else     | that file, or an error in its place                                                           |

    Raises:
        UsageError: a list cannot be read or is none, or a camera cannot.
        MissingExtraError: a video, but PyAV is not installed.
        OSError: a folder cannot be read.
    """
    for source in sources:
        name = os.fspath(source)
        if name == STDIN:
            yield from _listed(_lines(sys.stdin.buffer, "standard input"), max_pixels)
        elif name.startswith(_LIST):
            yield from _listed(_list_file(name.removeprefix(_LIST)), max_pixels)
        elif is_live(name):
            yield from camera_frames(name)
        else:
            yield from _at(name, max_pixels)


def is_live(source: str | os.PathLike[str]) -> bool:
    """Whether it shows something else every time: a camera."""
    return is_camera(os.fspath(source)) and not os.path.lexists(source)


def _listed(paths: Iterable[str], max_pixels: int) -> Iterator[Picture]:
    for path in paths:
        yield from _at(path, max_pixels)


def _at(path: str, max_pixels: int) -> Iterator[Picture]:
    # `isdir` takes any string: what cannot be a name becomes an error in the picture's place.
    if os.path.isdir(path):  # noqa: PTH112
        yield from map(Picture.at, walk_pictures(path))
    elif is_video(path):
        yield from video_frames(path, max_pixels)
    else:
        yield Picture.at(path)


def _list_file(path: str) -> Iterator[str]:
    try:
        if os.path.splitext(path)[1].lower() == ".csv":  # noqa: PTH122
            # Names that are not UTF-8 keep their bytes; spreadsheets write a byte order mark.
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as table:  # noqa: PTH123
                yield from _column(table, path)
        else:
            with open(path, "rb") as lines:  # noqa: PTH123
                yield from _lines(lines, f"'{path}'")
    except OSError as error:
        raise UsageError(f"Cannot read the list '{path}': {error.strerror or error}.") from error


def _lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """The lines that are not empty, as file names."""
    number = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE or b"\0" in line:
            raise UsageError(f"Line {number} of {name} is no file name. Expected text, a path per line.")
        if stripped := line.rstrip(b"\r\n"):
            yield os.fsdecode(stripped)


def _column(table: IO[str], path: str) -> Iterator[str]:
    reader = csv.DictReader(table, strict=True)
    try:
        found = list(reader.fieldnames or ())
        reader.fieldnames = [name.strip().lower() for name in found]
        if _CSV_COLUMN not in reader.fieldnames:
            raise UsageError(
                f"'{path}' has no column '{_CSV_COLUMN}': its first line holds {', '.join(map(repr, found)) or 'nothing'}."
            )
        for row in reader:
            if not row[_CSV_COLUMN]:
                raise UsageError(f"'{path}', line {reader.line_num}: the {_CSV_COLUMN} is empty.")
            yield os.path.join(os.path.dirname(path), row[_CSV_COLUMN])  # noqa: PTH118, PTH120
    except csv.Error as error:
        raise UsageError(f"'{path}', line {reader.line_num}: {error}. Expected a CSV file.") from error
