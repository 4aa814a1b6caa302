"""What a report says, before it is Markdown or HTML: sections of paragraphs, tables, lists and pictures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Block",
    "Bullets",
    "Code",
    "Document",
    "Inline",
    "Paragraph",
    "Picture",
    "Section",
    "Strong",
    "Table",
    "Verbatim",
]


@dataclass(frozen=True)
class Code:
    """A name, a file or a command, in a fixed-width font."""

    text: str


@dataclass(frozen=True)
class Strong:
    """What the eye should find first."""

    text: str


Inline = str | Code | Strong


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    parts: tuple[Inline, ...]


@dataclass(frozen=True)
class Bullets:
    """A list; each item is running text."""

    items: tuple[tuple[Inline, ...], ...]


@dataclass(frozen=True)
class Table:
    """Cells by row. The first `left` columns are aligned left, the others, figures, right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Inline, ...], ...]
    left: int = 1


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the report; `alt` says what it is, `caption` how to read it."""

    file: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Verbatim:
    """Text as it stands in a file."""

    text: str
    language: str


Block = Paragraph | Bullets | Table | Picture | Verbatim


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    sections: tuple[Section, ...]
