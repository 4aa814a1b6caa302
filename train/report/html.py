"""A report as one HTML file that needs nothing else: pictures inside, no scripts, no requests."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

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

__all__ = ["to_html"]

# Even if a name slipped through unescaped, the policy would keep a browser from running or loading anything.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

_STYLE = """
:root { --text: #1d2733; --quiet: #5b6773; --page: #fff; --panel: #f4f6f8; --line: #d9dfe5; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e8ed; --quiet: #9aa7b4; --page: #14191f; --panel: #1e252d; --line: #35404b; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 2px solid var(--accent); }
p, li { max-width: 46rem; }
li { margin: .3rem 0; }
code { font: .9em ui-monospace, monospace; background: var(--panel); padding: .1em .3em; border-radius: 4px;
  overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-x: auto; }
pre code { padding: 0; background: none; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
.left { text-align: left; white-space: normal; min-width: 6rem; }
.left, .left code { overflow-wrap: break-word; }
figure { margin: 1.25rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: .4rem; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .4rem; max-width: 46rem; }
"""


def to_html(document: Document, folder: Path) -> str:
    """The whole page; pictures are read from `folder`."""
    body = "\n".join(_section(section, folder) for section in document.sections)
    title = _text(document.title)
    return (
        f"{_HEAD}<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, folder: Path) -> str:
    blocks = "\n".join(_block(block, folder) for block in section.blocks)
    return f"<section>\n<h2>{_text(section.title)}</h2>\n{blocks}\n</section>"


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{_line(block.parts)}</p>"
    if isinstance(block, Bullets):
        return "<ul>\n" + "\n".join(f"<li>{_line(item)}</li>" for item in block.items) + "\n</ul>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        data = base64.b64encode((folder / block.file).read_bytes()).decode("ascii")
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{_text(block.alt)}">'
            f"<figcaption>{_text(block.caption)}</figcaption></figure>"
        )
    # A line break is meant here; everything else invisible is spelled out as elsewhere.
    lines = "\n".join(_text(line) for line in block.text.rstrip().split("\n"))
    return f"<pre><code>{lines}</code></pre>"


def _table(table: Table) -> str:
    def row(tag: str, cells: tuple[Inline, ...]) -> str:
        return (
            "<tr>"
            + "".join(
                f'<{tag} class="left">{_inline(cell)}</{tag}>'
                if number < table.left
                else f"<{tag}>{_inline(cell)}</{tag}>"
                for number, cell in enumerate(cells)
            )
            + "</tr>"
        )

    body = "\n".join(row("td", cells) for cells in table.rows)
    return (
        f'<div class="scroll"><table>\n<thead>{row("th", table.columns)}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _line(parts: tuple[Inline, ...]) -> str:
    return "".join(_inline(part) for part in parts)


def _inline(part: Inline) -> str:
    if isinstance(part, Strong):
        return f"<strong>{_text(part.text)}</strong>"
    if isinstance(part, Code):
        return f"<code>{_text(part.text)}</code>"
    return _text(part)


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
