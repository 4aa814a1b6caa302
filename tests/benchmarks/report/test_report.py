"""The files of a report: they need nothing else, obey no name, and leave nothing out. html.parser and markdown-it read."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from edgewright.benchmarks.document import read_document
from edgewright.benchmarks.report import bars, drawing
from edgewright.benchmarks.report.bars import plot_latency, plot_stages
from edgewright.benchmarks.report.content import build_content, grouped
from edgewright.benchmarks.report.drawing import legible
from edgewright.benchmarks.report.html import to_html
from edgewright.benchmarks.report.markdown import to_markdown
from edgewright.benchmarks.report.pareto import plot_pareto
from edgewright.benchmarks.report.writer import write_report
from edgewright.benchmarks.reports import LayerTime, SampleSet
from edgewright.runtime.errors import MissingExtraError

Measure = Callable[..., Any]

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b `c` *d* _e_ [f](http://e.org) $x^2$ \\frac",
    "--> ]]> </style></svg><b>",
    "犬 & кот \u202e evil\nline",
    "x" * 300,
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


LAYERS = {"model.fp32": [LayerTime(f"conv{index}", "Conv", "fp32", 1.0, 0.04) for index in range(25)]}


@pytest.fixture(scope="module")
def usual(measured: Measure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "usual"
    document, samples = measured(findings=["Other programs took 30% of the processor's time."])
    write_report(folder, document, samples, LAYERS)
    return folder


@pytest.fixture(scope="module")
def hostile(measured: Measure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "hostile"
    document, samples = measured(
        HOSTILE,
        findings=HOSTILE,
        bundle=HOSTILE[0],
        device={"cpu": HOSTILE[1], HOSTILE[2]: HOSTILE[3], "versions": {HOSTILE[0]: HOSTILE[1]}},
    )
    rows = [replace(row, precision=row.artefact[:20], backend=row.artefact[:20]) for row in document.reports]
    layers = {name: [LayerTime(name, name, name, 1.0, 1.0)] for name in HOSTILE}
    write_report(folder, document.model_copy(update={"reports": tuple(rows)}), samples, layers)
    return folder


def test_files(usual: Path, measured: Measure) -> None:
    names = {path.name for path in usual.iterdir()}
    pictures = {"pareto.png"} | {
        f"{kind}-closed-loop-{batch}.png" for kind in ("latency", "stages") for batch in (1, 8)
    }
    assert names == {"report.html", "report.md", "bench.json"} | pictures
    assert (
        read_document(usual / "bench.json")
        == measured(findings=["Other programs took 30% of the processor's time."])[0]
    )
    linked = set(re.findall(r"\]\(([^)]*)\)", (usual / "report.md").read_text()))
    assert linked == pictures


@pytest.mark.parametrize("which", ["usual", "hostile"])
def test_page_asks_for_nothing_and_runs_nothing(which: str, request: pytest.FixtureRequest) -> None:
    text = (request.getfixturevalue(which) / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("svg") == 5
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key == "src"]
    references = [value for key, value in page.attributes if key in ("href", "xlink:href")]
    assert references
    assert all(value.startswith("#") for value in references)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert any(value.startswith("default-src 'none'") for key, value in page.attributes if key == "content")


def test_references_lead_to_one_place_each(usual: Path) -> None:
    page = Page((usual / "report.html").read_text())
    names = [value for key, value in page.attributes if key == "id"]
    assert len(names) == len(set(names))
    references = {value[1:] for key, value in page.attributes if key == "xlink:href"}
    assert references <= set(names)


def test_hostile_names_are_shown(hostile: Path) -> None:
    page = Page((hostile / "report.html").read_text())
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[5]):
        # In the table four times (threads and batches), among the findings, and over its layers.
        assert page.text.count(name) >= 6
    assert "\\u202e evil\\nline" in page.text
    assert page.tags.count("h1") == 1
    assert page.tags.count("style") == 1 + page.tags.count("svg")


def test_hostile_names_are_shown_in_markdown(hostile: Path) -> None:
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = Page(renderer.render((hostile / "report.md").read_text()))
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[5]):
        assert page.text.count(name) >= 6
    assert not {"script", "a", "em", "code", "s", "b"} & set(page.tags)
    assert page.tags.count("img") == 5
    assert not [key for key, _ in page.attributes if key.startswith("on")]


@pytest.mark.parametrize("text", ["- item", "1. item", "+ item", "# head", "> quote", "    code", "=== x", "---"])
def test_a_finding_is_one_item_in_markdown(text: str, measured: Measure, tmp_path: Path) -> None:
    page = Page(MarkdownIt("commonmark").render(to_markdown(build_content(measured(findings=[text])[0], {}), [])))
    quoted = page.tags[page.tags.index("blockquote") :]
    assert quoted[:5] == ["blockquote", "p", "strong", "ul", "li"]
    assert quoted[5] == "h2"
    assert text.strip() in page.text


def test_findings_come_first(usual: Path) -> None:
    for file in ("report.html", "report.md"):
        text = (usual / file).read_text()
        text = text[text.index("<h1>" if file.endswith("html") else "# ") :]
        places = [text.index(words) for words in ("doubtful", "30%", "Fastest", "Where this was measured")]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("findings", "said", "box"), [((), "Nothing was found", "sound"), (None, "Nobody looked", "doubt")]
)
def test_no_findings_are_not_no_look(findings: Any, said: str, box: str, measured: Measure) -> None:
    content = build_content(measured(findings=findings)[0], {})
    page = to_html(content, [])
    assert said in page
    assert f'class="{box}"' in page
    assert said in to_markdown(content, [])


def test_table_has_every_row_and_marks_the_recommended(usual: Path) -> None:
    text = (usual / "report.html").read_text()
    table = text[text.index("<h2>All of them") : text.index("<h2>How times scatter")]
    assert Page(table).tags.count("tr") == 1 + 4 * 2 * 2
    assert table.count('<span class="badge">recommended</span>') == 4
    assert (usual / "report.md").read_text().count("(recommended)") == 4


def test_pictures_follow_the_page_s_colours(usual: Path) -> None:
    text = (usual / "report.html").read_text()
    drawn = text[text.index("<svg") :]
    for colour, variable in drawing._VARIABLES.items():
        assert f"var({variable}, {colour})" in drawn
        assert f"{variable}: " in text
    # No colour of a light page is left alone: on a dark one it could not be seen.
    assert not re.search(r"(?<!, )#(1d2733|5b6773|e3e6e9|fefefe)", drawn)
    # A letter without a colour is black.
    assert "<metadata" not in drawn
    assert "<!--" not in drawn


def test_pictures_are_the_same_every_time(measured: Measure) -> None:
    document, samples = measured(threads=(2,), batches=(1,))
    group = grouped(document.reports)[0]
    for draw in (
        lambda: plot_pareto(document.reports, "x"),
        lambda: plot_latency(document.reports, group, samples),
        lambda: plot_stages(document.reports, group),
    ):
        one, other = draw(), draw()
        assert one is not None
        assert other is not None
        assert (one.svg, one.png) == (other.svg, other.png)


def drawn(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as stored:
        image: Image.Image = stored.convert("RGB")
    assert len(image.getcolors(1 << 24) or ()) > 10, "nothing was drawn"
    return image


def test_many_rows_stay_apart_and_what_is_left_out_is_named(measured: Measure) -> None:
    document, samples = measured([f"artefact-{index}" for index in range(35)], threads=(1,), batches=(1,))
    group = grouped(document.reports)[0]
    pictures = (plot_latency(document.reports, group, samples), plot_stages(document.reports, group))
    for picture in pictures:
        assert picture is not None
        assert drawn(picture.png).height > 35 * 30
        assert "more are in the table" not in picture.caption
    with mock.patch.object(bars, "MOST_ROWS", 5):
        picture = plot_stages(document.reports, group)
    assert picture is not None
    assert drawn(picture.png).height < 10 * 40
    assert "The 5 fastest; 30 more are in the table." in picture.caption


@pytest.mark.parametrize("slowest", [1.5, 40.0, 1e6])
def test_nothing_is_clipped(slowest: float, measured: Measure) -> None:
    document, _ = measured(["one", "other"], threads=(1,), batches=(1,))
    total = np.concatenate([np.linspace(1, 1.2, 500), [slowest]])
    samples = {0: SampleSet(total, {}), 1: SampleSet(np.full(500, 1.1), {})}
    seen: list[drawing.Canvas] = []

    @contextlib.contextmanager
    def kept(slug: str, height: float) -> Iterator[drawing.Canvas]:
        with drawing.drawing(slug, height) as canvas:
            seen.append(canvas)
            yield canvas

    with mock.patch.object(bars, "drawing", kept):
        picture = plot_latency(document.reports, grouped(document.reports)[0], samples)
    (axes,) = seen[0].figure.axes
    low, high = axes.get_xlim()
    assert low < 1
    assert high > slowest
    assert (axes.get_xscale() == "log") == (slowest > 8)
    furthest = max(line.get_xdata().max() for line in axes.lines)
    assert furthest == slowest
    drawn(picture.png)


def test_without_samples_accuracy_or_stages(measured: Measure, tmp_path: Path) -> None:
    document, _ = measured(threads=(1,), batches=(4,))
    rows = [
        replace(row, top1=None, drop=None, stages_ms={}, p90_ms=None, p95_ms=None, p99_ms=None, intervals={})
        for row in document.reports
    ]
    write_report(tmp_path, document.model_copy(update={"reports": tuple(rows)}))
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html", "report.md", "bench.json", "latency-closed-loop-4.png",
    }  # fmt: skip
    assert "Where the time goes" not in (tmp_path / "report.html").read_text()


def test_equal_rows_are_drawn(measured: Measure) -> None:
    document, _ = measured(["one"], threads=(1,), batches=(1,))
    picture = plot_pareto(document.reports * 3, "x")
    assert picture is not None
    drawn(picture.png)


def test_names_in_pictures() -> None:
    assert legible(["a", "犬", "x" * 100, "a\nb"]) == ["a", "?", "x" * 19 + "…" + "x" * 18, "a\\nb"]


def test_without_matplotlib_the_extra_is_named(measured: Measure, tmp_path: Path) -> None:
    document, _ = measured()
    with (
        mock.patch("edgewright.runtime.extras.find_spec", return_value=None),
        pytest.raises(MissingExtraError, match=re.escape("edgewright[bench]")),
    ):
        write_report(tmp_path / "report", document)
    assert not (tmp_path / "report").exists()


def test_json_is_the_document(usual: Path) -> None:
    content = json.loads((usual / "bench.json").read_text())
    assert content["schema_version"] == 1
    assert len(content["reports"]) == 16
