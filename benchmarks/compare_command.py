"""`edgewright bench compare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgewright.benchmarks.compare import Comparison, Difference

__all__ = ["compare_command", "parse_percent", "print_comparison"]


def parse_percent(text: str) -> float:
    """`10%` or `10` as a share, 0.1.

    Raises:
        UsageError: not a number, negative, or a bare fraction, which may be meant as a share or as per cent.
    """
    bare = text.strip().removesuffix("%").strip()
    try:
        percent = float(bare)
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 1e6:
        raise UsageError(f"'{text}' is no percentage. Write for example --fail-if-slower 10%")
    if 0 < percent < 1 and "%" not in text:
        raise UsageError(f"'{text}' may be meant as {percent:.0%} or as {text}%. Write it with its %.")
    return percent / 100


def compare_command(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="The earlier measurement: a file of `bench --json`.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The later one.")],
    fail_if_slower: Annotated[
        Optional[str],
        typer.Option(
            metavar="PERCENT",
            help="End with status 1 if a median is slower by more than this, for example 10%, and surely slower.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare two measurements: what became slower or faster, beyond noise."""
    from edgewright.benchmarks.compare import compare_documents
    from edgewright.benchmarks.document import read_document

    tolerance = None if fail_if_slower is None else parse_percent(fail_if_slower)
    found = compare_documents(read_document(a), read_document(b))
    if not found.differences:
        raise UsageError(
            f"'{a}' and '{b}' have no row in common: first {', '.join(found.only_a)}; then {', '.join(found.only_b)}. "
            "Measure with the same artefacts, threads, batches and scenario."
        )
    if json:
        emit_json(found.as_json())
    print_comparison(f"{a} → {b}", found)
    if tolerance is None:
        notice(f"next: edgewright bench compare {a} {b} --fail-if-slower 10%")
    elif slower := found.slower(tolerance):
        worst = max(slower, key=lambda each: each.ratio)
        raise GateError(
            f"{len(slower)} of {_rows(found)} slower by more than {100 * tolerance:g}%, the worst {worst.name}: "
            f"{worst.a_ms:.3g} ms before, now {worst.b_ms:.3g} ms. Expected none. Measure both again on a quiet machine, "
            "or look for what changed."
        )


def _rows(found: Comparison) -> int:
    return sum(each.percentile == "p50" for each in found.differences)


def print_comparison(title: str, found: Comparison) -> None:
    """The table a person sees: a line for each way to run the model."""
    from edgewright.benchmarks.report.words import figure

    others = {(each.name, each.percentile): each for each in found.differences}
    print_table(
        title,
        ("", "p50 before", "now, ms", "change", "95%", "p90", "p99", ""),
        [
            (
                each.name,
                figure(each.a_ms),
                figure(each.b_ms),
                _percent(each.ratio),
                _range(each),
                *(
                    _percent(other.ratio) if (other := others.get((each.name, name))) else None
                    for name in ("p90", "p99")
                ),
                ("slower" if each.difference_ms > 0 else "faster") if each.significant else "",
            )
            for each in found.differences
            if each.percentile == "p50"
        ],
    )
    for note in found.notes:
        warn(note)
    for when, names in (("earlier", found.only_a), ("later", found.only_b)):
        if names:
            notice(f"only in the {when} measurement: {', '.join(names)}")
    notice(f"slower: {len(found.slower())}, faster: {len(found.faster())}, of {_rows(found)}; the others within noise")


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"


def _range(each: Difference) -> str | None:
    if each.low_ms is None or each.high_ms is None:
        return None
    return f"{100 * each.low_ms / each.a_ms:+.1f} … {100 * each.high_ms / each.a_ms:+.1f}%"
