"""How every picture looks: one palette, one font size, names that cannot break the drawing, small files."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgewright.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "RED",
    "SKY",
    "drawing",
    "legible",
    "percent_axis",
]

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)
"""Okabe and Ito, "Color Universal Design" (2008): told apart by people who do not see all colours."""

_COLOURS = 256
_DPI = 100

# DejaVu comes with matplotlib. The others, where the system has them, know Chinese, Japanese and Korean.
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Hiragino Sans",
)


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return tuple(name for name in _FAMILIES if name in installed)


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points that the fonts have."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(point for name in _families() for point in FT2Font(findfont(name)).get_charmap())


@contextlib.contextmanager
def drawing(path: Path, width: float, height: float, *, photographs: bool = False) -> Iterator[Figure]:
    """A figure of `width` x `height` inches, written to `path` as a PNG when the block ends well.

    With `photographs` the file gets a palette of 256 colours, a third of the size, and the axes stay where
    :func:`photograph_grid` puts them.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with mpl.rc_context(
        {
            "font.family": list(_families()),
            "font.size": 9.0,
            "axes.titlesize": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": "#E3E6E9",
            "legend.frameon": False,
            # A class may be called $x$.
            "text.parse_math": False,
        }
    ):
        # The object interface draws without a display and without pyplot's list of figures.
        figure = Figure(figsize=(width, height), layout=None if photographs else "constrained")
        yield figure
        figure.savefig(buffer, format="png", dpi=_DPI)
    if photographs:
        image = Image.open(buffer).convert("RGB")
        reduced = image.quantize(_COLOURS, Image.Quantize.MEDIANCUT)
        buffer = io.BytesIO()
        image.quantize(palette=reduced, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG")
    atomic_write(path, buffer.getvalue())


def photograph_grid(figure: Figure, rows: int, columns: int, title_lines: int) -> npt.NDArray[np.object_]:
    """Axes without frames, (rows, columns), with room for titles; placed by hand, which is several times faster."""
    width, height = figure.get_size_inches()
    side, top = 0.04 / width, title_lines * 0.16 / height + 0.03
    cell = (1 - rows * top) / rows
    figure.subplots_adjust(side, 0.01, 1 - side, 1 - top, wspace=0.04, hspace=top / cell)
    grid: npt.NDArray[np.object_] = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return grid


def legible(names: Sequence[str], longest: int = 20) -> list[str]:
    """Class names as a picture can show them: cut at `longest`, and by number where no font has the characters."""
    shown = []
    for index, name in enumerate(names):
        if not all(ord(char) in _drawable() for char in name):
            shown.append(f"class {index}")
        else:
            shown.append(name if len(name) <= longest else f"{name[: longest - 1]}…")
    return shown


def percent_axis(axis: Axis) -> None:
    """Label a share, 0..1, in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
