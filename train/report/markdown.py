"""A report as Markdown (GitHub's dialect, for its tables); pictures stay files beside it."""

from __future__ import annotations

import re

from edgewright.runtime.visible import visible
from edgewright.train.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Inline,
    Paragraph,
    Picture,
    Section,
    Strong,
    Table,
)

__all__ = ["to_markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")


def to_markdown(document: Document) -> str:
    """The whole text, ending in a line break."""
    parts = [f"# {_inline(document.title)}"]
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    return [f"## {_inline(section.title)}", *(_block(block) for block in section.blocks)]


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return _line(block.parts)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_line(item)}" for item in block.items)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return f"![{_inline(block.alt)}]({block.file})\n\n{_inline(block.caption)}"
    fence = "`" * max(3, _longest_run(block.text) + 1)
    return f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"


def _table(table: Table) -> str:
    rules = ["---" if number < table.left else "---:" for number in range(len(table.columns))]
    rows = [[_inline(cell, in_table=True) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:]))


def _line(parts: tuple[Inline, ...]) -> str:
    return "".join(_inline(part) for part in parts)


def _inline(part: Inline, *, in_table: bool = False) -> str:
    if isinstance(part, Strong):
        return f"**{_escape(part.text)}**"
    if isinstance(part, Code):
        return _code(visible(part.text), in_table)
    return _escape(part)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(text))


def _code(text: str, in_table: bool) -> str:
    # Nothing is special between backticks but backticks, and in a table the bar, even there.
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    inside = text.replace("|", r"\|") if in_table else text
    return f"{fence}{pad}{inside}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
