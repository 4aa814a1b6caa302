"""A report as Markdown (GitHub's dialect, for its tables); pictures stay files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgewright.benchmarks.report.content import COLUMNS, Content, Fact, LayerTable
from edgewright.benchmarks.report.drawing import Picture
from edgewright.benchmarks.report.words import markdown_text

__all__ = ["to_markdown"]

_BEGINS_A_BLOCK = re.compile(r"^(\d*)(?=[-+=.)])")


def to_markdown(content: Content, pictures: Sequence[Picture]) -> str:
    """The whole text, ending in a line break; `pictures` are beside it as `SLUG.png`."""
    return "\n\n".join(_blocks(content, pictures)) + "\n"


def _blocks(content: Content, pictures: Sequence[Picture]) -> Iterator[str]:
    yield f"# {markdown_text(content.title)}"
    yield _line(content.subtitle)
    if content.findings is None:
        yield "> **Nobody looked at what may have disturbed this measurement.**"
    elif not content.findings:
        yield "Nothing was found that makes these figures doubtful."
    else:
        items = "\n".join(f"> - {_line(finding)}" for finding in content.findings)
        yield f"> **What makes these figures doubtful**\n>\n{items}"
    yield f"## Which one ({markdown_text(content.compared)})"
    yield "\n".join(
        f"- {headline.title}: **{markdown_text(headline.name)}**, {markdown_text(', '.join(headline.figures))}."
        f"{' ' if headline.remark else ''}{markdown_text(headline.remark)}"
        for headline in content.headlines
    )
    yield from (_picture(each) for each in pictures if each.slug == "pareto")
    yield "## All of them"
    rows = [
        (f"{row.cells[0]} (recommended)" if row.recommended else row.cells[0], *row.cells[1:]) for row in content.rows
    ]
    yield _table(COLUMNS, rows)
    yield from map(_line, content.remarks)
    for title, kind in (("How times scatter", "latency"), ("Where the time goes", "stages")):
        if found := [each for each in pictures if each.slug.startswith(kind)]:
            yield f"## {title}"
            yield from map(_picture, found)
    if content.layers:
        yield "## Layer by layer"
        yield from map(_layers, content.layers)
    yield "## Where this was measured"
    yield from (_facts(*each) for each in (("Machine", content.device), ("Conditions", content.conditions)) if each[1])
    if content.silent:
        yield f"Not told by this machine: {markdown_text(', '.join(content.silent))}."


def _line(text: str) -> str:
    """`text` at the beginning of a line, where a dash or a number with a point would begin a list."""
    return _BEGINS_A_BLOCK.sub(r"\1\\", markdown_text(text.strip()))


def _picture(picture: Picture) -> str:
    return f"![{markdown_text(picture.alt)}]({picture.slug}.png)\n\n{_line(picture.caption)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 3) -> str:
    rules = ["---" if number < left else "---:" for number in range(len(columns))]
    lines = [columns, *rows]
    written = [[markdown_text(cell) for cell in row] for row in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in (written[0], rules, *written[1:]))


def _layers(table: LayerTable) -> str:
    return f"### {markdown_text(table.name)}\n\n{_table(('layer', 'kind', 'precision', 'ms', 'share'), table.rows)}"


def _facts(title: str, facts: Sequence[Fact]) -> str:
    return f"**{title}**\n\n" + "\n".join(f"- {markdown_text(name)}: {markdown_text(value)}" for name, value in facts)
