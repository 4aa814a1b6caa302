"""What a person sees: tables, progress and notices on stderr. stdout is left for results and `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["be_quiet", "console", "emit_json", "notice", "print_table", "track", "warn"]

Item = TypeVar("Item")

_LOG_WIDTH = 160

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
