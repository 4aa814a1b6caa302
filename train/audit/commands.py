"""`edgewright audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import UsageError
from edgewright.runtime.extras import require

if TYPE_CHECKING:
    from edgewright.train.audit.results import Audit

__all__ = ["audit_command", "parse_eps"]


def parse_eps(text: str) -> tuple[int, ...]:
    """'1,2,4,8' as rising whole numbers from 1 to 255.

    Raises:
        UsageError: anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 255 for part in parts):
        raise UsageError(f"--eps '{text}': expected whole numbers from 1 to 255 with commas between, such as 1,2,4,8.")
    return tuple(sorted({int(part) for part in parts}))


def _print(found: Audit) -> None:
    from edgewright.train.audit.report import attack_rows, corruption_mean, reading

    columns = ("run", "clean", *found.runs[0].corruptions, "mean")
    print_table(
        f"top-1 on {found.pictures} pictures, spoilt: means of 5 strengths",
        columns,
        [
            (
                one.subject.name,
                f"{one.top1:.3f}",
                *(f"{sum(values) / len(values):.3f}" for values in one.corruptions.values()),
                f"{corruption_mean(one):.3f}",
            )
            for one in found.runs
        ],
    )
    header, rows = attack_rows(found)
    print_table("adversarial examples: share of the rightly named pictures that become wrong", header, rows)
    for sentence in reading(found):
        notice(sentence)


def audit_command(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, as `edgewright train` writes them.")],
    data: Annotated[str, typer.Argument(help="Data as `edgewright train` takes it; its test split is used.")],
    images: Annotated[
        int, typer.Option(min=2, max=20_000, help="At most so many pictures, every class its share.")
    ] = 100,
    eps: Annotated[str, typer.Option(help="Largest changes of a pixel, of 255.")] = "1,2,4,8",
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Gradients per picture and search.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Choice of pictures, noise, starts of searches.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    out: Annotated[Optional[Path], typer.Option(help="Folder for report and pictures. (default: RUN/audit)")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Spoil and attack pictures, also with what is public of a run: how far can it be trusted?"""
    bounds = parse_eps(eps)
    folder = out or runs[0] / "audit"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out '{folder}' is a file. Expected a folder.")
    require("train", "torch", "torchvision", "safetensors", "matplotlib", "yaml", "sklearn")
    from edgewright.train.audit.audit import audit
    from edgewright.train.audit.results import AuditPlan

    found = audit(AuditPlan(tuple(runs), data, images, bounds, steps, seed, device))
    document = _write(found, folder)
    if json:
        emit_json(document)
    _print(found)
    notice(f"{found.seconds:.0f} s; report and pictures in {folder}")
    notice(f"next: edgewright export {runs[0]}")


def _write(found: Audit, folder: Path) -> dict[str, Any]:
    import json

    from edgewright.runtime.files import atomic_write
    from edgewright.train.audit.pictures import draw_audit
    from edgewright.train.audit.report import audit_document, audit_page

    document = audit_document(found) | {"out": str(folder)}
    # First: the figures took minutes, the pictures take seconds.
    atomic_write(folder / "audit.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    atomic_write(folder / "audit.md", audit_page(found, draw_audit(found, folder)))
    return document
