"""A report as one HTML file that needs nothing else: pictures inside, no scripts, no requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgewright.benchmarks.report.content import COLUMNS, Content, Fact, LayerTable
from edgewright.benchmarks.report.drawing import Picture
from edgewright.benchmarks.report.words import html_text

__all__ = ["to_html"]

# Even if a name slipped through unescaped, the policy would keep a browser from running or loading anything.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

_STYLE = """
:root { --text: #1d2733; --quiet: #5b6773; --page: #fefefe; --panel: #f4f6f8; --line: #dfe4e8; --accent: #0072b2;
  --doubt: #b45309; --doubt-panel: #fff7e6; --good: #00795a; --chosen: #eaf3f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e8ed; --quiet: #9aa7b4; --page: #14191f; --panel: #1e252d; --line: #35404b; --accent: #56b4e9;
    --doubt: #f0b354; --doubt-panel: #2d2415; --good: #3fc79f; --chosen: #1a2a37; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 2px solid var(--accent); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, li { max-width: 46rem; }
.quiet { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; margin: 0 0 .5rem; }
.doubt, .sound { border-left: 4px solid var(--doubt); background: var(--doubt-panel); border-radius: 0 8px 8px 0;
  padding: .7rem 1rem; margin: 1rem 0; }
.doubt ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.doubt li { overflow-wrap: anywhere; }
.sound { border-color: var(--good); background: var(--panel); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: .5rem 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.05rem; overflow-wrap: anywhere; }
.card span { display: block; }
.card .what { color: var(--quiet); font-size: .85rem; }
.card .why { color: var(--quiet); font-size: .85rem; margin-top: .3rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .38rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; }
th:first-child { position: sticky; left: 0; background: var(--page); padding-left: 0; max-width: 15rem;
  white-space: normal; overflow-wrap: break-word; min-width: 10rem; }
.left { text-align: left; }
tr.chosen > * { background: var(--chosen); }
.badge { display: block; color: var(--accent); font-size: .75rem; font-weight: 600; }
figure { margin: 1rem 0; max-width: 50rem; min-width: 0; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 0 1.5rem; }
figure h3 { margin-top: 0; }
figure svg { display: block; width: 100%; min-width: 30rem; height: auto; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .3rem; max-width: 46rem; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: .5rem 0; font-size: .92rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 2.5rem; }
@media (max-width: 30rem) {
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } th:first-child { min-width: 7rem; max-width: 8.5rem; }
}
@media print { .scroll { overflow: visible; } }
"""


def to_html(content: Content, pictures: Sequence[Picture]) -> str:
    """The whole page; `pictures` go into it as SVG."""
    title = html_text(content.title)
    body = "\n".join(_body(content, pictures))
    return (
        f"{_HEAD}<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _body(content: Content, pictures: Sequence[Picture]) -> Iterator[str]:
    yield f'<p class="quiet">{html_text(content.subtitle)}</p>'
    yield _findings(content.findings)
    yield f"<h2>Which one ({html_text(content.compared)})</h2>"
    yield '<div class="cards">' + "\n".join(_cards(content)) + "</div>"
    by_kind = {
        kind: [each for each in pictures if each.slug.startswith(kind)] for kind in ("pareto", "latency", "stages")
    }
    yield from map(_figure, by_kind["pareto"])
    yield "<h2>All of them</h2>"
    yield _table(content)
    yield from (f'<p class="quiet">{html_text(remark)}</p>' for remark in content.remarks)
    for title, kind in (("How times scatter", "latency"), ("Where the time goes", "stages")):
        if by_kind[kind]:
            yield f"<h2>{title}</h2>"
            yield '<div class="side">' + "\n".join(map(_figure, by_kind[kind])) + "</div>"
    if content.layers:
        yield "<h2>Layer by layer</h2>"
        yield from map(_layers, content.layers)
    yield "<h2>Where this was measured</h2>"
    yield f'<div class="pair">{_facts("Machine", content.device)}{_facts("Conditions", content.conditions)}</div>'
    if content.silent:
        yield f'<p class="quiet">Not told by this machine: {html_text(", ".join(content.silent))}.</p>'


def _findings(findings: tuple[str, ...] | None) -> str:
    if findings is None:
        return '<div class="doubt"><strong>Nobody looked at what may have disturbed this measurement.</strong></div>'
    if not findings:
        return '<div class="sound">Nothing was found that makes these figures doubtful.</div>'
    items = "".join(f"<li>{html_text(finding)}</li>" for finding in findings)
    return f'<div class="doubt"><strong>What makes these figures doubtful</strong><ul>{items}</ul></div>'


def _cards(content: Content) -> Iterator[str]:
    for headline in content.headlines:
        why = f'<span class="why">{html_text(headline.remark)}</span>' if headline.remark else ""
        yield (
            f'<div class="card"><span class="what">{html_text(headline.title)}</span><b>{html_text(headline.name)}</b>'
            f"<span>{'<br>'.join(map(html_text, headline.figures))}</span>{why}</div>"
        )


def _figure(picture: Picture) -> str:
    # The drawing's own text is outlines: what it shows is told by its name, the caption and the table.
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{html_text(picture.alt)}" ', 1)
    title = html_text(picture.alt[:1].upper() + picture.alt[1:])
    caption = html_text(picture.caption)
    return f'<figure><h3>{title}</h3><div class="scroll">{svg}</div><figcaption>{caption}</figcaption></figure>'


def _table(content: Content) -> str:
    rows = [(row.cells, "recommended" if row.recommended else "") for row in content.rows]
    return _grid(COLUMNS, rows, left=3)


def _layers(table: LayerTable) -> str:
    grid = _grid(("layer", "kind", "precision", "ms", "share"), [(row, "") for row in table.rows], left=3)
    return f"<details><summary>{html_text(table.name)}</summary>{grid}</details>"


def _grid(columns: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], left: int) -> str:
    """A table; each row comes with what is to be said of it, or nothing. The first `left` columns are words."""
    sides = [' class="left"' if number < left else "" for number in range(len(columns))]
    head = "".join(f"<th{side}>{html_text(name)}</th>" for side, name in zip(sides, columns, strict=True))
    lines = []
    for cells, said in rows:
        badge = f'<span class="badge">{html_text(said)}</span>' if said else ""
        first, *others = map(html_text, cells)
        figures = "".join(f"<td{side}>{cell}</td>" for side, cell in zip(sides[1:], others, strict=True))
        chosen = ' class="chosen"' if said else ""
        lines.append(f'<tr{chosen}><th class="left" scope="row">{first}{badge}</th>{figures}</tr>')
    body = "\n".join(lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _facts(title: str, facts: Sequence[Fact]) -> str:
    entries = "\n".join(f"<dt>{html_text(name)}</dt><dd>{html_text(value)}</dd>" for name, value in facts)
    return f"<div><h3>{title}</h3>\n<dl>\n{entries}\n</dl></div>" if facts else ""
