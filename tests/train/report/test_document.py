"""One document, two renderings: neither lets a name become markup. markdown-it and html.parser are the readers."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from edgewright.runtime.visible import visible
from edgewright.train.report.document import (
    Bullets,
    Code,
    Document,
    Inline,
    Paragraph,
    Picture,
    Section,
    Strong,
    Table,
    Verbatim,
)
from edgewright.train.report.html import to_html
from edgewright.train.report.markdown import to_markdown

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><b>',
    "a|b",
    "`tick`",
    "two `` ticks",
    "*bold* _it_ [x](http://e.org)",
    "\\",
    "&amp;",
    "犬 & кот",
    "a`|`b",
    "~~x~~",
]


class Reader(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def everywhere(name: str) -> Document:
    parts: tuple[Inline, ...] = ("begin ", name, " ", Code(name), " ", Strong(name), " end")
    blocks = (Paragraph(parts), Bullets((parts,)), Table((name, "n"), ((name, "1"), (Code(name), "2"))))
    return Document(name, (Section(name, (*blocks, Verbatim(f"key: {name}\nmore: ```", "yaml"))),))


@pytest.mark.parametrize("name", HOSTILE)
def test_html_shows_a_name_and_never_obeys_it(name: str, tmp_path: Path) -> None:
    reader = Reader(to_html(everywhere(name), tmp_path))
    # Title, h1, h2; three each in paragraph and list; head and two cells of the table; the text as it stands.
    assert reader.text.count(name) == 3 + 6 + 3 + 1
    assert not {"script", "img", "b", "link"} & set(reader.tags)
    assert not [key for key, _ in reader.attributes if key.startswith("on") or key in ("href", "src")]


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_name_and_never_obeys_it(name: str) -> None:
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    reader = Reader(renderer.render(to_markdown(everywhere(name))))
    assert reader.text.count(name) == 2 + 6 + 3 + 1
    assert not {"script", "img", "b", "a", "s", "em"} & set(reader.tags)
    assert reader.tags.count("td") == 4


def test_both_renderings_say_the_same(tmp_path: Path) -> None:
    document = everywhere("cat")
    markdown = MarkdownIt("commonmark").enable("table").render(to_markdown(document))
    page = to_html(document, tmp_path)
    words = ["".join(Reader(text).text.split()) for text in (markdown, page[page.index("<main>") :])]
    assert words[0] == words[1]


def test_page_holds_its_pictures_and_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(b"\x89PNG not really")
    page = to_html(Document("t", (Section("s", (Picture("curves.png", "alt", "caption"),)),)), tmp_path)
    sources = [value for key, value in Reader(page).attributes if key == "src"]
    assert sources == ["data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()]
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("خانه\u200cها", "خانه\u200cها"),
        ("кот 犬 é", "кот 犬 é"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(name: str, shown: str) -> None:
    assert visible(name) == shown
    shown.encode()
