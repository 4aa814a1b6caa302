"""Names that come from files, as people may see them."""

from __future__ import annotations

__all__ = ["visible"]

_JOINERS = "\u200c\u200d"
"""Invisible, but part of how Persian, Hindi and emoji are written."""


def visible(text: str) -> str:
    """`text` with control characters, line breaks and writing-direction marks spelled out."""
    return "".join(
        char
        if char.isprintable() or char in _JOINERS
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
