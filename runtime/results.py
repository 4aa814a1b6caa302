"""A file of results that grows as they come, and that an interrupted run continues: `predict --out`.

What an interrupt can leave behind, and what becomes of it:

| left behind                     | with `--resume`                                                                     |
|---------------------------------|-------------------------------------------------------------------------------------|
| rows, the last one torn         | the torn one is cut off, and the pictures that have rows are passed over            |
| other pictures than before      | refused: rows and pictures are compared one by one, in order                        |
| rows of another model or format | refused: `<out>.run.json`, written before the first row, says what they are of      |
| rows that still become Parquet  | they are in `<out>.rows.jsonl`, and that is the file which goes on                  |
| a finished file                 | it goes on as well, should there be more pictures now                               |

So the file ends up with the same bytes, interrupted or not. Two processes cannot write the same file, but on Windows, where
nothing keeps them from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from edgewright.runtime.classifier import Classifier
from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.runtime.extras import require
from edgewright.runtime.files import atomic_write
from edgewright.runtime.picture import Picture
from edgewright.runtime.rows import CsvRows, JsonRows, Row, RowFormat
from edgewright.runtime.tuned import manifest_sha256

__all__ = ["ResultsFile", "RunRecord", "run_record"]

_AGAIN = "Give what it was begun with, another --out, or --overwrite."


class RunRecord(BaseModel):
    """What the rows of a file are of; stands beside it as `<out>.run.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    bundle: str
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    artefact: str
    backend: str
    top_k: int = Field(ge=1)
    min_score: float = Field(ge=0, le=1)
    format: Literal["csv", "jsonl", "parquet"]


def run_record(classifier: Classifier, out: Path, top_k: int) -> RunRecord:
    """The record of a run that is about to begin.

    Raises:
        UsageError: the name of `out` is that of no format we write.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in ("csv", "jsonl", "parquet"):
        raise UsageError(f"--out {out}: expected a name that ends in .csv, .jsonl or .parquet.")
    if suffix == "parquet":
        require("parquet", "pyarrow")
    manifest = classifier.manifest
    return RunRecord.model_validate(
        {
            "bundle": manifest.name,
            "manifest_sha256": manifest_sha256(manifest),
            "artefact": classifier.artefact.name,
            "backend": classifier.backend_name,
            "top_k": min(top_k, len(manifest.labels)),
            "min_score": classifier.min_score,
            "format": suffix,
        }
    )


class ResultsFile:
    """The file at `out`, open for more rows; a context manager, which completes it if all went well.

    Attributes:
        kept: Rows that were there already.
        kept_failed: Those of them that are errors.
    """

    def __init__(self, out: Path, record: RunRecord, *, resume: bool = False, overwrite: bool = False) -> None:
        """Begin the file, or open what is there.

        Args:
            out: A name that ends in the record's format.
            record: What the rows will be of.
            resume: Continue a file that is there, and begin it otherwise.
            overwrite: Replace a file that is there.

        Raises:
            UsageError: a file is there and was not to be, is of another run, or is being written.
        """
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: continue the file, or begin it again?")
        self.kept = self.kept_failed = 0
        self._out = out
        self._parquet = record.format == "parquet"
        self._format: RowFormat = CsvRows(record.top_k) if record.format == "csv" else JsonRows()
        self._rows = out.with_name(f"{out.name}.rows.jsonl") if self._parquet else out
        for path in {out, self._rows}:
            if path.is_dir():
                raise UsageError(f"'{path}' is a folder. Expected a file, or nothing, in its place.")
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self._rows.exists()
        self._stream: BinaryIO = os.fdopen(os.open(self._rows, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            _lock(self._stream, out)
            self._begin(record, resume, overwrite)
        except BaseException:
            self._close()
            if fresh and self._rows.stat().st_size == 0:
                self._rows.unlink()
            raise

    def _begin(self, record: RunRecord, resume: bool, overwrite: bool) -> None:
        beside = self._out.with_name(f"{self._out.name}.run.json")
        begun = os.fstat(self._stream.fileno()).st_size > 0
        finished = self._parquet and self._out.exists()
        if begun or finished:
            if not resume and not overwrite:
                raise UsageError(
                    f"'{self._out}' is there already. Continue it with --resume, or replace it with --overwrite."
                )
            if resume:
                _require_same(record, beside, self._out)
                if not begun:
                    self._take_back()
                return
            self._stream.truncate(0)
            if finished:
                self._out.unlink()
        atomic_write(beside, record.model_dump_json(indent=2) + "\n")

    def _take_back(self) -> None:
        """The rows of a finished Parquet file, as those that it was made of."""
        from edgewright.runtime.parquet import read_rows

        for row in read_rows(self._out):
            self._stream.write(self._format.encode(row))
        self._stream.flush()
        self._stream.seek(0)

    def skip(self, pictures: Iterator[Picture]) -> None:
        """Take from `pictures` those that have rows; call it once, before the first `write`.

        Raises:
            UsageError: they are not those that the rows are of, or the file holds something else than rows.
        """
        header = self._format.header()
        size = os.fstat(self._stream.fileno()).st_size
        end = len(header) if size >= len(header) else 0
        for number, row in enumerate(self._format.written(self._stream, str(self._rows)) if size else (), 1):
            picture = next(pictures, None)
            if picture is None or self._name(picture.name) != self._name(row.file):
                now = "there is none" if picture is None else f"it is '{picture.name}'"
                raise UsageError(
                    f"Picture {number} of '{self._out}' was '{row.file}'; now {now}. The sources have changed. {_AGAIN}"
                )
            self.kept, self.kept_failed, end = number, self.kept_failed + row.failed, row.end
        self._stream.seek(end)
        if size > end:
            notice(f"'{self._rows}': the last row was torn; it is made again")
            self._stream.truncate()
        if end == 0:
            self._write(header)

    def _name(self, name: str) -> str:
        from edgewright.runtime.parquet import portable

        return portable(name) if self._parquet else name

    def write(self, row: Row) -> None:
        """Add a row; when this returns, it outlives the process."""
        self._write(self._format.encode(row))

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            error.filename = error.filename or str(self._rows)
            raise

    def _finish(self) -> None:
        os.fsync(self._stream.fileno())
        if self._parquet:
            from edgewright.runtime.parquet import write_rows

            self._stream.seek(0)
            write_rows(self._out, (row for _, row in JsonRows().rows(self._stream, str(self._rows))))
            self._rows.unlink()

    def _close(self) -> None:
        # What a full disk did not take was reported when it was written.
        with suppress(OSError):
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._close()


def _require_same(record: RunRecord, beside: Path, out: Path) -> None:
    try:
        found = RunRecord.model_validate_json(beside.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"'{out}' cannot be continued: '{beside.name}' beside it, which says what it is of, is missing or damaged. "
            "Give another --out, or --overwrite."
        ) from error
    for field in RunRecord.model_fields:
        old, new = getattr(found, field), getattr(record, field)
        if old != new:
            raise UsageError(f"'{out}' was begun with {field} {old}, this is {new}. {_AGAIN}")


def _lock(stream: BinaryIO, out: Path) -> None:
    """Keep other processes from writing the file; the system forgets it when this process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"Another process is writing '{out}'. Wait for it, or give another --out.") from error
