"""Results as rows, and rows as lines of CSV or JSON: written one by one, read back up to where an interrupt tore them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from edgewright.runtime.errors import ImageError, UsageError
from edgewright.runtime.picture import Picture
from edgewright.runtime.pipeline import Result

if TYPE_CHECKING:
    from edgewright.runtime.classifier import Prediction, Timings

__all__ = ["CsvRows", "JsonRows", "Row", "RowFormat", "Written", "prediction_row", "row_of", "timings_row"]

Row = dict[str, Any]
"""`file` and `error`, or `file`, `label`, `index`, `score`, `known` and `top_k` (a list of `label` and `score`); `time_s` for
frames.

What `--json` prints, but for the timings: the same pictures give the same rows.
"""


def row_of(result: Result) -> Row:
    """The row of a result of :func:`~edgewright.runtime.sources.pictures`."""
    assert isinstance(result.source, Picture)
    row: Row = {"file": result.source.name}
    if result.source.time_s is not None:
        row["time_s"] = result.source.time_s
    if result.prediction is None:
        return row | {"error": str(result.error or ImageError("no picture"))}
    return row | prediction_row(result.prediction)


def prediction_row(found: Prediction) -> Row:
    """What a row holds of a prediction."""
    return {
        "label": found.label,
        "index": found.index,
        "score": found.score,
        "known": found.known,
        "top_k": [{"label": each.label, "score": each.score} for each in found.top_k],
    }


def timings_row(timings: Timings) -> Row:
    """Milliseconds by stage, as documents have them."""
    return {name.removesuffix("_ms"): value for name, value in asdict(timings).items()}


@dataclass(frozen=True, slots=True)
class Written:
    """A row that is in a file already: of which picture, whether it is an error, and where its bytes end."""

    file: str
    failed: bool
    end: int


class RowFormat(Protocol):
    """How rows stand in a file."""

    def header(self) -> bytes:
        """What comes before the first row."""

    def encode(self, row: Row) -> bytes:
        """The row's bytes; nothing in them depends on other rows."""

    def written(self, stream: IO[bytes], name: str) -> Iterator[Written]:
        """The complete rows of a file from its start; a torn end is passed over.

        Raises:
            UsageError: it holds something else.
        """


class JsonRows:
    """A JSON document per line (JSON Lines), ASCII."""

    def header(self) -> bytes:
        """See :class:`RowFormat`."""
        return b""

    def encode(self, row: Row) -> bytes:
        """See :class:`RowFormat`."""
        return (json.dumps(row, allow_nan=False) + "\n").encode("ascii")

    def written(self, stream: IO[bytes], name: str) -> Iterator[Written]:
        """See :class:`RowFormat`."""
        end = 0
        for line, row in self.rows(stream, name):
            end += len(line)
            yield Written(row["file"], "error" in row, end)

    def rows(self, stream: IO[bytes], name: str) -> Iterator[tuple[bytes, Row]]:
        """The complete lines, and the rows in them.

        Raises:
            UsageError: a line is no row.
        """
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if (
                not isinstance(row, dict)
                or not isinstance(row.get("file"), str)
                or ("error" in row) == ("label" in row)
            ):
                raise UsageError(
                    f"Line {number} of '{name}' is no result of `predict`. Give another --out, or --overwrite."
                )
            yield line, row


class CsvRows:
    """Comma-separated values, UTF-8, every text quoted.

    Columns: `file`, `time_s`, `label`, `index`, `score`, `known` (true or false), then `label_2`, `score_2` and so on up to
    `top_k`, `error`. A name that is not UTF-8 keeps its bytes.
    """

    def __init__(self, top_k: int) -> None:
        others = [f"{column}_{rank}" for rank in range(2, top_k + 1) for column in ("label", "score")]
        self._columns = ["file", "time_s", "label", "index", "score", "known", *others, "error"]

    def header(self) -> bytes:
        """See :class:`RowFormat`."""
        return self._line(self._columns)

    def encode(self, row: Row) -> bytes:
        """See :class:`RowFormat`."""
        cells: dict[str, Any] = {
            name: row.get(name, "") for name in ("file", "time_s", "label", "index", "score", "error")
        }
        if "known" in row:
            cells["known"] = "true" if row["known"] else "false"
        for rank, other in enumerate(row.get("top_k", ())[1:], 2):
            cells |= {f"label_{rank}": other["label"], f"score_{rank}": other["score"]}
        return self._line([cells.get(column, "") for column in self._columns])

    @staticmethod
    def _line(cells: list[Any]) -> bytes:
        text = io.StringIO()
        # Older Pythons leave a carriage return unquoted if they may choose what to quote.
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
        return text.getvalue().encode("utf-8", "surrogateescape")

    def written(self, stream: IO[bytes], name: str) -> Iterator[Written]:
        """See :class:`RowFormat`."""
        end = 0
        whole = True

        def lines() -> Iterator[str]:
            # A name may hold a line break, so that a row is as many lines as the reader asks for.
            nonlocal end, whole
            for line in stream:
                whole = line.endswith(b"\n")
                end += len(line)
                yield line.decode("utf-8", "surrogateescape")

        reader = csv.reader(lines(), strict=True)
        try:
            for number, cells in enumerate(reader):
                if not whole:
                    return
                if len(cells) != len(self._columns) or (number == 0 and cells != self._columns):
                    raise UsageError(
                        f"Row {number} of '{name}' is no result of `predict`. Give another --out, or --overwrite."
                    )
                if number > 0:
                    yield Written(cells[0], bool(cells[-1]), end)
        except csv.Error as error:
            if stream.read(1):
                raise UsageError(f"'{name}' is damaged: {error}. Give another --out, or --overwrite.") from error
