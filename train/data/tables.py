"""Datasets as a CSV file: a header, a line per picture with `path` and `label`, and `split` if there are splits."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edgewright.runtime.errors import DataError
from edgewright.runtime.folders import SPLIT_NAMES
from edgewright.train.data.listing import UNSPLIT, Listing, Report, divide, refuse
from edgewright.train.data.samples import ImageData, Sample

__all__ = ["is_table", "list_table", "read_table"]

_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_EXPECTED = "Expected a header 'path,label' or 'path,label,split', then a line per picture"


class _Row(NamedTuple):
    line: int
    file: str
    label: str
    split: str


def is_table(origin: str | Path) -> bool:
    """Whether DATA is a CSV file, by its name."""
    return Path(origin).suffix.lower() == ".csv" and not Path(origin).is_dir()


def read_table(file: Path, *, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """Read a CSV of `path,label[,split]`; paths start at the CSV's folder, or are absolute.

    With a column `split` (train, val or valid or validation, test), missing splits are made as for a folder with
    splits; without, as for one without.

    Raises:
        DataError: an unreadable file, a missing column, and by its line: an empty cell, an unknown split, a picture
            that is not there, or one that is listed with two labels or in two splits.
    """
    listing = list_table(file, refuse)
    return divide(listing, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)


def list_table(file: Path, report: Report) -> Listing:
    """What is listed in `file`, and in `report` what training could not use.

    Raises:
        DataError: the file cannot be read at all, or lacks a column.
    """
    rows = list(_distinct(_rows(file, report), file, report))
    splits = list(dict.fromkeys(row.split for row in rows))
    if not rows:
        report(f"'{file}' lists no pictures. {_EXPECTED}.")
    elif UNSPLIT not in splits and "train" not in splits:
        report(f"'{file}' has no picture in the split 'train', only in: {', '.join(splits)}.")
    learnt = {row.label for row in rows if row.split in (UNSPLIT, "train")}
    for row in rows:
        if learnt and row.label not in learnt:
            report(f"'{file}', line {row.line}: the class '{row.label}' has no picture in the split 'train'.")
            learnt.add(row.label)
    classes = tuple(sorted({row.label for row in rows}))
    if len(classes) == 1:
        report(f"'{file}' has one class ('{classes[0]}'). Expected at least two different labels.")
    _require_files(rows, file, report)
    index = {name: number for number, name in enumerate(classes)}
    members: dict[str, list[Sample]] = {split: [] for split in (*SPLIT_NAMES, UNSPLIT) if split in splits}
    for row in rows:
        members[row.split].append(Sample(_path(file, row.file), index[row.label], row.file))
    return Listing(str(file), classes, {split: tuple(samples) for split, samples in members.items()})


def _rows(file: Path, report: Report) -> Iterator[_Row]:
    try:
        # `utf-8-sig`: spreadsheets write a byte order mark. Cells may hold line breaks, so csv reads the lines itself.
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, skipinitialspace=True)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            for column in ("path", "label"):
                if column not in header:
                    found = ", ".join(f"'{name}'" for name in header) or "nothing"
                    raise DataError(f"'{file}' has no column '{column}': its first line holds {found}. {_EXPECTED}.")
            for record in reader:
                if (row := _row(record, reader.line_num, header, file, report)) is not None:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read '{file}': {error}. Expected a CSV file in UTF-8.") from error


def _row(record: dict[str, str | None], line: int, header: list[str], file: Path, report: Report) -> _Row | None:
    """The row of a record; None if it cannot be used and the report let it pass."""
    where = f"'{file}', line {line}"
    if None in record:
        report(f"{where}: more cells than the header's {len(header)}. Put a path with a comma in double quotes.")
    cells = {column: (record.get(column) or "").strip() for column in ("path", "label", "split")}
    for column in ("path", "label"):
        if not cells[column]:
            report(f"{where}: the {column} is empty.")
            return None
    if not cells["label"].isprintable():
        report(f"{where}: the label {cells['label']!r} has a line break or another control character.")
    split = _SPLIT_OF.get(cells["split"].lower()) if "split" in header else UNSPLIT
    if split is None:
        found = f"'{cells['split']}' is no split" if cells["split"] else "the split is empty"
        report(f"{where}: {found}. Expected one of: {', '.join(_SPLIT_OF)}.")
        return None
    return _Row(line, _name(cells["path"], file), cells["label"], split)


def _distinct(rows: Iterable[_Row], file: Path, report: Report) -> Iterator[_Row]:
    """Every picture once; the same line twice says nothing new."""
    seen: dict[str, _Row] = {}
    for row in rows:
        first = seen.setdefault(row.file, row)
        if first is row:
            yield row
        elif first.label != row.label:
            report(
                f"'{file}', line {row.line}: '{row.file}' has the label '{row.label}', and '{first.label}' in line "
                f"{first.line}. Expected one label for a picture."
            )
        elif first.split != row.split:
            report(
                f"'{file}', line {row.line}: '{row.file}' is in the split '{row.split}', and in '{first.split}' in line "
                f"{first.line}. Expected one split for a picture."
            )


def _require_files(rows: list[_Row], file: Path, report: Report) -> None:
    missing = [row for row in rows if not os.path.isfile(_path(file, row.file))]  # noqa: PTH113
    if missing:
        others = f" {len(missing) - 1:,} more pictures are missing." if len(missing) > 1 else ""
        report(
            f"'{file}', line {missing[0].line}: no file at '{_path(file, missing[0].file)}'. Expected paths that start "
            f"at the CSV's folder, or absolute ones.{others}"
        )


def _name(path: str, file: Path) -> str:
    """One name for a picture, however its path is written: from the CSV's folder if it lies below, else absolute."""
    name = os.path.normpath(path)
    if os.path.isabs(name):  # noqa: PTH117
        below = os.path.join(file.parent, "")  # noqa: PTH118
        name = name.removeprefix(below)
    return name.replace(os.sep, "/")


def _path(file: Path, name: str) -> str:
    return os.path.join(file.parent, name)  # noqa: PTH118
