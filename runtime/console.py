"""What a person sees: tables, progress and notices on stderr. stdout is left for results and `--json`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["JsonList", "Meter", "be_quiet", "console", "emit_json", "notice", "print_table", "track", "warn"]

Item = TypeVar("Item")

_LOG_WIDTH = 160
_LOG_EVERY_S = 60.0

_console: Console | None = None


def console() -> Console:
    """The console on stderr, made on first use: importing rich costs more than importing the runtime."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=True, highlight=False)
        if not _console.is_terminal:
            # In a log file a table must not be cut to the 80 columns of a terminal that is not there.
            _console.width = _LOG_WIDTH
    return _console


def be_quiet() -> None:
    """Say nothing from now on: of several processes that work together, one speaks."""
    console().quiet = True


def notice(text: str) -> None:
    """Say something that is worth knowing."""
    console().print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Say something that may need attention."""
    console().print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def track(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """Yield `items` behind a progress bar; where stderr is not a terminal, one line at the end."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), refresh_per_second=4) as progress:
        yield from progress.track(items, total=total, description=description)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; the first column is left-aligned, the others right-aligned."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    console().print(table)


def emit_json(document: Any) -> None:
    """Print the one JSON document of a command on stdout; ASCII, so that no terminal's encoding can spoil it."""
    if _console is not None and _console.quiet:
        return
    print(json.dumps(document, indent=2, allow_nan=False))


class JsonList:
    """What :func:`emit_json` prints for `{key: [item, ...]}`, item by item: a million need no more memory than one.

    A context manager: whatever happens, the document is ended, and holds what was added.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._empty = True
        self._broken = False

    def add(self, item: Any) -> None:
        """Print one more item."""
        text = textwrap.indent(json.dumps(item, indent=2, allow_nan=False), "    ")
        self._print(f"{'' if self._empty else ','}\n{text}")
        self._empty = False

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except OSError:
            # Printing more would fail as well, and hide why.
            self._broken = True
            raise

    def __enter__(self) -> Self:
        self._print(f"{{\n  {json.dumps(self._key)}: [")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._broken:
            self._print("]\n}\n" if self._empty else "\n  ]\n}\n")


class Meter:
    """How many are done and how many a second, where nobody knows how many there will be; a context manager.

    A line that is kept up to date in a terminal; in a log file a line a minute.
    """

    def __init__(self, what: str) -> None:
        self.count = 0
        self._what = what
        self._start = self._told = monotonic()
        self._live: Progress | None = None

    def advance(self) -> None:
        """One more is done."""
        self.count += 1
        now = monotonic()
        if self._live is not None:
            if now - self._told > 0.2:
                self._told = now
                self._live.update(self._live.task_ids[0], description=self.rate())
        elif now - self._told > _LOG_EVERY_S:
            self._told = now
            notice(self.rate())

    def rate(self) -> str:
        """For example `1,200 pictures, 240.3/s`."""
        return f"{self.count:,} {self._what}, {self.count / max(1e-9, self.seconds):.1f}/s"

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self._start

    def __enter__(self) -> Self:
        if console().is_terminal:
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            # Left to itself, it would take what is printed on stdout and show it on stderr.
            self._live = Progress(
                *columns,
                console=console(),
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.add_task(self.rate(), total=None)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
