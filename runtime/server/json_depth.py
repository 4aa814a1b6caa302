"""How deep JSON is nested, found out before a parser goes down there."""

from __future__ import annotations

import re

__all__ = ["require_shallow"]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def require_shallow(text: bytes, deepest: int) -> None:
    """Refuse JSON whose lists and objects are nested deeper than `deepest`; whatever else is wrong, the parser says.

    Raises:
        ValueError: it is.
    """
    if text.count(b"[") + text.count(b"{") <= deepest:
        return
    depth = 0
    for bracket in _STRING.sub(b"", text).translate(None, delete=_NOT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > deepest:
                raise ValueError(f"JSON is nested deeper than {deepest} levels.")
        else:
            depth -= 1
