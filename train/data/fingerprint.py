"""What one decoding of a picture tells: its exact content, how it looks, and what is odd about its file."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgewright.runtime.errors import ImageError
from edgewright.runtime.images import FORMATS, read_image
from edgewright.train.data.samples import Sample

__all__ = ["THUMBNAIL", "Fingerprint", "fine_detail", "fingerprint"]

THUMBNAIL = 16
"""Side of the thumbnail by which two pictures are compared."""

_FIELD = 32
"""Side of the picture that is transformed; with `_FREQUENCIES` as in Zauner, see :func:`fingerprint`."""

_FREQUENCIES = 8

_LEAST_DETAIL = 1.0
"""Grey levels (standard deviation). Below, a picture is empty but for noise, and looks like every other such one."""

_ORIENTATION_TAG = 0x0112
_GREY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
_ODD_MODES = {
    "CMYK": "CMYK colours",
    "RGBA": "an alpha channel",
    "LA": "an alpha channel",
    "PA": "an alpha channel",
    "I;16": "16 bit grey",
    "I;16L": "16 bit grey",
    "I;16B": "16 bit grey",
    "I;16N": "16 bit grey",
}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One picture.

    Attributes:
        digest: SHA-256 of its size and its upright RGB pixels: equal for equal pictures in whatever file format.
        phash: 64 bits that change little when the picture does.
        mirrored: `phash` of its mirror image.
        detail: What of it is compared, see :func:`fine_detail`.
        width: Pixels, upright.
        height: Pixels, upright.
        grey: Whether the file holds shades of grey.
        oddities: What few pictures have, in words.
        orientation: EXIF orientation, 1 if upright or not said.
    """

    digest: bytes
    phash: int
    mirrored: int
    detail: npt.NDArray[np.int8]
    width: int
    height: int
    grey: bool
    oddities: tuple[str, ...]
    orientation: int


def fingerprint(sample: Sample) -> Fingerprint | str:
    """Look at a picture once; the reason if it cannot be decoded.

    The hash is pHash, the signs of the 8 x 8 lowest frequencies about their median (C. Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010): recompressed, resized and brightened copies keep it.
    """
    try:
        image = read_image(sample.source)
    except ImageError as error:
        return str(error)
    pixels = hashlib.sha256(f"{image.width}x{image.height}".encode())
    pixels.update(image.tobytes())
    small = image.convert("L").resize((_FIELD, _FIELD), Image.Resampling.BOX)
    field = np.asarray(small, dtype=np.float64)
    side = _FIELD // THUMBNAIL
    thumbnail = field.reshape(THUMBNAIL, side, THUMBNAIL, side).mean(axis=(1, 3))
    spectrum = _DCT @ field @ _DCT.T
    grey, oddities, orientation = _file_facts(sample)
    return Fingerprint(
        digest=pixels.digest(),
        phash=_bits(spectrum),
        # Mirroring left to right turns the sign of every odd horizontal frequency.
        mirrored=_bits(spectrum * (-1.0) ** np.arange(_FREQUENCIES)),
        detail=fine_detail(thumbnail),
        width=image.width,
        height=image.height,
        grey=grey,
        oddities=oddities,
        orientation=orientation,
    )


def fine_detail(thumbnail: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """What is finer than 3 x 3 pixels of a grey thumbnail, scaled to -127..127; zero for an empty picture.

    Args:
        thumbnail: Grey levels 0..255, axes [height, width], shape (16, 16).
    """
    padded = np.pad(thumbnail, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    fine = thumbnail - (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    fine -= fine.mean()
    if fine.std() < _LEAST_DETAIL:
        return np.zeros(thumbnail.shape, dtype=np.int8)
    return np.asarray((fine * (127 / np.abs(fine).max())).round().astype(np.int8))


def _dct() -> npt.NDArray[np.float64]:
    """The lowest rows of the orthonormal DCT-II, axes [frequency, position]."""
    frequency, position = np.ogrid[:_FREQUENCIES, :_FIELD]
    matrix = np.cos(np.pi * frequency * (2 * position + 1) / (2 * _FIELD)) * np.sqrt(2 / _FIELD)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


_DCT = _dct()


def _bits(spectrum: npt.NDArray[np.float64]) -> int:
    return int.from_bytes(np.packbits(spectrum > np.median(spectrum)).tobytes(), "big")


def _file_facts(sample: Sample) -> tuple[bool, tuple[str, ...], int]:
    """(grey, oddities, orientation) from the header alone."""
    source = io.BytesIO(sample.source) if isinstance(sample.source, bytes) else sample.source
    with Image.open(source, formats=FORMATS) as header:
        odd = []
        if header.mode in _ODD_MODES:
            odd.append(_ODD_MODES[header.mode])
        if header.mode == "P" and "transparency" in header.info:
            odd.append("a palette with transparency")
        if getattr(header, "is_animated", False):
            odd.append("an animation, of which only the first picture counts")
        try:
            orientation = header.getexif().get(_ORIENTATION_TAG, 1)
        except Exception:  # as in runtime.images: a damaged EXIF block says nothing about the orientation
            orientation = 1
        return header.mode in _GREY, tuple(odd), orientation if orientation in range(1, 9) else 1
