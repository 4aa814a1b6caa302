"""Figures and names as a page shows them: escaped, of sensible length, and never in a way that hides what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgewright.benchmarks.reports import LatencyReport
from edgewright.runtime.visible import visible

__all__ = ["NONE", "SCENARIOS", "figure", "html_text", "markdown_text", "p50_text", "spoken"]

NONE = "–"
"""What stands where there is no figure."""

SCENARIOS = {
    "closed-loop": "closed loop",
    "open-loop": "open loop",
    "mlperf-single-stream": "MLPerf single stream",
    "mlperf-multi-stream": "MLPerf multi-stream",
    "mlperf-offline": "MLPerf offline",
    "mlperf-server": "MLPerf server",
}

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$#])")


def html_text(text: str) -> str:
    """`text` as HTML shows it, in an element or a quoted attribute."""
    return escape(visible(text), quote=True)


def markdown_text(text: str) -> str:
    """`text` as Markdown shows it, in running text or a cell."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def figure(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, never in powers of ten where people read them: 0.0432, 2.31, 433, 12,345."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e9:
        return f"{value:.{digits}g}"
    rounded = float(f"{value:.{digits}g}")
    # Of the rounded value: 9.996 is 10.0, not 10.00.
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else _places(rounded)
    return f"{value:,.{max(0, digits - whole)}f}"


def _places(value: float) -> int:
    """0.5 has no leading zeros behind the point: 0; 0.05 has one: -1."""
    return int(f"{abs(value):e}".partition("e")[2]) + 1


def p50_text(report: LatencyReport) -> str:
    """The median and the wider side of its interval, ms, with as many decimals."""
    found = report.intervals.get("p50")
    if found is None:
        return figure(report.p50_ms)
    half = max(report.p50_ms - found.low_ms, found.high_ms - report.p50_ms, 0.0)
    value = figure(report.p50_ms)
    same = f"{half:,.{len(value.partition('.')[2])}f}"
    # Half a unit of the last decimal is not nothing.
    return f"{value} ± {same if 'e' not in value and float(same.replace(',', '')) else figure(half, 1)}"


def spoken(value: Any) -> str:
    """A value of an open dictionary, in one line."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:,.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spoken(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(spoken(item) for item in value) or "none"
    return str(value)
