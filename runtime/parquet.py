"""Rows of results as one Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_file
from edgewright.runtime.rows import Row

__all__ = ["portable", "read_rows", "write_rows"]

_GROUP = 10_000
"""Rows in memory at a time: a row group of the file."""


def portable(name: str) -> str:
    r"""The name as text that Parquet can hold: bytes that are not UTF-8 are written as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _schema() -> Any:
    import pyarrow as pa

    ranked = pa.struct([("label", pa.string()), ("score", pa.float64())])
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            ("time_s", pa.float64()),
            ("label", pa.string()),
            ("index", pa.int32()),
            ("score", pa.float64()),
            ("known", pa.bool_()),
            ("top_k", pa.list_(ranked)),
            ("error", pa.string()),
        ]
    )


def write_rows(path: Path, rows: Iterator[Row]) -> None:
    """Write `rows` to `path`, complete or not at all; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while group := [_portable(row) for row in islice(rows, _GROUP)]:
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))


def _portable(row: Row) -> Row:
    return row | {key: portable(row[key]) for key in ("file", "error") if key in row}


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file that :func:`write_rows` made.

    Raises:
        UsageError: it is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_schema()):
                raise UsageError(
                    f"'{path}' has other columns than results of `predict`. Give another --out, or --overwrite."
                )
            for batch in file.iter_batches(_GROUP):
                for row in batch.to_pylist():
                    yield {key: value for key, value in row.items() if value is not None}
    except pa.ArrowException as error:
        raise UsageError(f"Cannot read '{path}': {error}. Give another --out, or --overwrite.") from error
