"""DATA, as people name it on the command line: a folder, a CSV file, or a dataset known by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from edgewright.runtime.errors import DataError
from edgewright.train.data.digits import read_digits
from edgewright.train.data.folders import list_folder, read_folder
from edgewright.train.data.listing import UNSPLIT, Listing, Report
from edgewright.train.data.named import NAMES, list_named, read_named
from edgewright.train.data.samples import SPLITS, ImageData
from edgewright.train.data.tables import is_table, list_table, read_table

__all__ = ["DIGITS", "list_data", "picture_root", "read_data"]

DIGITS = "digits"


def read_data(
    origin: str,
    *,
    seed: int,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    data_root: str | Path | None = None,
) -> ImageData:
    """The dataset behind a folder, a CSV file or a name (`digits`, :data:`NAMES`). A folder of that name wins.

    Args:
        origin: What to read.
        seed: Decides the splits that are not given.
        val_fraction: Share of the validation split where there is none.
        test_fraction: Share of the test split where there are no splits.
        data_root: Where datasets known by name are kept; None for
            :func:`edgewright.train.data.named.default_data_root`.

    Raises:
        DataError: see :func:`edgewright.train.data.folders.read_folder`,
            :func:`edgewright.train.data.tables.read_table` and :func:`edgewright.train.data.named.read_named`.
    """
    path = Path(origin).resolve()
    if path.is_dir():
        return read_folder(path, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if path.is_file() and is_table(path):
        return read_table(path, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if origin == DIGITS:
        return read_digits(seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if origin in NAMES:
        root = None if data_root is None else Path(data_root)
        return read_named(origin, data_root=root, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    raise DataError(_not_found(origin, path))


def list_data(origin: str, report: Report, *, data_root: str | Path | None = None) -> Listing:
    """What :func:`read_data` would read, nothing split off yet; `report` hears what it would refuse.

    Raises:
        DataError: there is no such data.
    """
    path = Path(origin).resolve()
    if path.is_dir():
        return list_folder(path, report)
    if path.is_file() and is_table(path):
        return list_table(path, report)
    if origin == DIGITS:
        data = read_digits(seed=0, val_fraction=0.15, test_fraction=0.15)
        samples = sorted((sample for split in SPLITS for sample in data.splits[split]), key=lambda sample: sample.name)
        return Listing(DIGITS, data.classes, {UNSPLIT: tuple(samples)})
    if origin in NAMES:
        return list_named(origin, None if data_root is None else Path(data_root))
    raise DataError(_not_found(origin, path))


def picture_root(origin: str) -> Path:
    """Where the names of the samples of a dataset start, by its `origin`: the folder, or that of the CSV file."""
    return Path(origin).parent if is_table(origin) else Path(origin)


def _not_found(origin: str, path: Path) -> str:
    names = (DIGITS, *NAMES)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(origin, names, n=1) or [
        str(Path(origin).parent / name)
        for name in difflib.get_close_matches(path.name, beside, n=1)
        if name != path.name
    ]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return (
        f"No folder at '{path}'. Expected a folder with train/, val/, test/, or one folder per class; a .csv file with "
        f"path,label; or one of: {', '.join(names)}.{hint}"
    )
