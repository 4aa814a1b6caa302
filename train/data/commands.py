"""`edgewright data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table, warn

if TYPE_CHECKING:
    from edgewright.train.data.advice import Group
    from edgewright.train.data.inspection import Inspection

__all__ = ["check_command", "data_app"]

data_app = typer.Typer(help="Look after datasets.", no_args_is_help=True)

_SHOWN = 10


@data_app.callback()
def _data() -> None:
    """Look after datasets."""


@data_app.command("check")
def check_command(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images (with train/ val/ test/, or one folder per class), a CSV of path,label, or one of "
            "digits, mnist, fashion_mnist, cifar10, cifar100."
        ),
    ],
    data_root: Annotated[
        Optional[Path],
        typer.Option(help="Where datasets known by name are kept (default: ~/.cache/edgewright/datasets)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Look for what spoils a training: damaged files, copies, leaks between splits, uneven classes, odd pictures."""
    from edgewright.train.data.inspection import inspect_data

    inspection = inspect_data(data, data_root=data_root)
    if json:
        emit_json(inspection.document())
    _show(inspection)
    root = f" --data-root {_quoted(str(data_root))}" if data_root is not None else ""
    notice(f"next: edgewright train {_quoted(data)}{root}")


def _show(inspection: Inspection) -> None:
    splits = inspection.splits
    rows = [
        (name, *(splits[split][name] for split in splits), *([total] if len(splits) > 1 else []))
        for name, total in inspection.classes.items()
    ]
    columns = ("class", *splits, *(["total"] if len(splits) > 1 else []))
    print_table(f"{inspection.images:,} pictures in {len(rows)} classes", columns, rows)
    _show_files("cannot be read", inspection.corrupt)
    _show_groups("in more than one split", inspection.leaks)
    _show_groups("more than once in a split", inspection.duplicates)
    for warning in inspection.warnings:
        warn(warning)
    if not inspection.warnings:
        notice("nothing to complain about")


def _show_files(title: str, found: tuple[tuple[str, str], ...]) -> None:
    if found:
        print_table(f"{title}: {len(found):,}{_first(len(found))}", ("file", "why"), found[:_SHOWN])


def _show_groups(title: str, groups: tuple[Group, ...]) -> None:
    if groups:
        print_table(
            f"{title}: {len(groups):,}{_first(len(groups))}",
            ("files", "kind", "split", "class"),
            [
                (
                    "\n".join(_few(group.files)),
                    group.kind,
                    ", ".join(dict.fromkeys(group.splits)),
                    ", ".join(dict.fromkeys(group.labels)),
                )
                for group in groups[:_SHOWN]
            ],
        )


def _few(files: tuple[str, ...]) -> list[str]:
    return [*files[:4], *([f"and {len(files) - 4} more"] if len(files) > 4 else [])]


def _first(count: int) -> str:
    return f", the first {_SHOWN} (all with --json)" if count > _SHOWN else ""


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
