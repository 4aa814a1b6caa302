"""How every picture looks, and its two files: SVG for the page, which follows its colours, and PNG beside the Markdown."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.runtime.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PAGE",
    "PURPLE",
    "QUIET",
    "RED",
    "SKY",
    "WIDTH",
    "Canvas",
    "Picture",
    "drawing",
    "legible",
    "time_axis",
]

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, GREY = "#cc79a7", "#56b4e9", "#7f7f7f"
"""Okabe and Ito, "Color Universal Design" (2008): told apart by people who do not see all colours."""

INK, QUIET, GRID, PAGE = "#1d2733", "#5b6773", "#e3e6e9", "#fefefe"
_VARIABLES = {INK: "--text", QUIET: "--quiet", GRID: "--line", PAGE: "--page"}
"""In a page these follow light and dark; nothing else is drawn in them."""

WIDTH = 6.6
"""Inches, of all pictures, so that their letters have one size."""

_PNG_DPI = 150
_LONGEST = 38
_LONG_TAIL = 8.0
"""Of the longest to the shortest time, from which on an axis is logarithmic."""


@dataclass(frozen=True)
class Picture:
    """One drawing; `alt` says what it is, `caption` how to read it."""

    slug: str
    alt: str
    caption: str
    svg: str
    png: bytes


@dataclass
class Canvas:
    """A figure, and when its block has ended, its files."""

    figure: Figure
    svg: str = ""
    png: bytes = b""

    def picture(self, slug: str, alt: str, caption: str) -> Picture:
        """The finished picture."""
        return Picture(slug, alt, caption, self.svg, self.png)


@contextlib.contextmanager
def drawing(slug: str, height: float) -> Iterator[Canvas]:
    """A figure `height` inches high, drawn when the block ends well; the same every time, without dates."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {
        # It comes with matplotlib, so that a picture looks the same everywhere.
        "font.family": ["DejaVu Sans"],
        "font.size": 9.0,
        "text.color": INK,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "legend.frameon": False,
        # Letters as outlines: another font would be wider and run over what is beside it.
        "svg.fonttype": "path",
        "svg.hashsalt": slug,
        # An artefact may be called $x$.
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        # SVG counts in points, 72 an inch; measuring letters in the same keeps labels where they were found to fit.
        figure = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        canvas = Canvas(figure)
        yield canvas
        page = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(page, format="svg", transparent=True, metadata=nothing)
        canvas.svg = _inline(page.getvalue(), slug)
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=_PNG_DPI, facecolor="white", metadata={"Software": None})
        canvas.png = pixels.getvalue()


def _inline(page: str, slug: str) -> str:
    """An SVG file as an element of a page that has others: names of its own, the page's colours, no comments."""
    svg = page[page.index("<svg") :].strip()
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{slug}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f"{head}>{rest}"


@functools.cache
def _drawable() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


def legible(names: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """Names as a picture can show them: shortened in the middle, "?" where the font has no character."""
    shown = []
    for name in names:
        drawn = "".join(char if ord(char) in _drawable() else "?" for char in visible(name))
        if len(drawn) > longest:
            drawn = f"{drawn[: longest // 2]}…{drawn[-(longest - longest // 2 - 1) :]}"
        shown.append(drawn)
    return shown


def time_axis(axes: Axes, shortest: float, longest: float, *, label: str, from_zero: bool = True) -> bool:
    """Make the horizontal axis one of milliseconds that has room for all; returns whether it is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    logarithmic = longest / shortest > _LONG_TAIL
    if logarithmic:
        wide = longest / shortest > 300
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=15))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(shortest / 1.12, longest * 1.12)
    else:
        margin = 0.06 * longest if from_zero else 0.12 * (longest - shortest) + 0.02 * longest
        axes.set_xlim(0 if from_zero else max(0.0, shortest - margin), longest + margin)
    # Plain numbers: matplotlib would write powers of ten, some of them in a corner.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"{label}, ms{' (logarithmic)' if logarithmic else ''}")
    return logarithmic
