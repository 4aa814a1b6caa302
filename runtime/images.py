"""From the bytes of a picture to RGB pixels, the same way in training, on the device, in the server and in the demo.

What a stranger's file can hold, and what becomes of it:

| found                         | becomes                                                                  |
|-------------------------------|--------------------------------------------------------------------------|
| EXIF orientation              | applied                                                                  |
| grey, grey + alpha, 1 bit     | three equal channels                                                     |
| palette                       | its colours                                                              |
| transparency (RGBA, LA, P)    | composed over white; Pillow alone would show the hidden colour or black  |
| CMYK, YCCK                    | RGB                                                                      |
| 16 bit grey                   | the upper 8 bits; Pillow's own `convert("RGB")` turns it all 255         |
| 32 bit integer or float grey  | refused: its range is not declared in the file                           |
| animation                     | the first frame                                                          |
| more than `max_pixels`        | refused from the header, before decoding                                 |
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgewright.runtime.errors import ImageError

__all__ = ["EXTENSIONS", "FORMATS", "MAX_PIXELS", "ImageSource", "check_image", "read_image"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any]"

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Formats that Pillow may try; every other decoder stays closed to files from strangers."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""File name endings (lower case) that are taken for pictures in a folder."""

MAX_PIXELS = 64_000_000
"""Default limit on width x height: 64 megapixels are 192 MB as RGB."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None) -> Image.Image:
    """Decode a picture into upright RGB.

    Args:
        source: A path, the bytes of a file, a Pillow image, or an array: uint8, axes [height, width] for grey or
            [height, width, channel] with 1 (grey), 3 (RGB) or 4 (RGB + alpha) channels.
        max_pixels: Largest width x height that is accepted; checked before any pixel is decoded.
        least_side: The file of a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter side keeps so
            many pixels. libjpeg then computes the smaller picture from a part of each block's cosine coefficients, which
            takes a fraction of the time; pixels differ a little from those of a full picture made smaller.

    Returns:
        A fully loaded image of mode RGB.

    Raises:
        ImageError: not a file, not an accepted format, damaged, too large, or an array of another kind.
    """
    if isinstance(source, np.ndarray):
        image = _from_array(source)
        name = "the array"
    elif isinstance(source, Image.Image):
        image, name = source, "the image"
    else:
        image, name = _open(source)
    _require_size(image, name, max_pixels)
    # Somebody else's image is not ours to reduce.
    if least_side is not None and image is not source:
        _reduce(image, least_side)
    return _load(image, name)


def check_image(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> None:
    """Find out whether :func:`read_image` would accept a file, in a fraction of the time.

    JPEGs are decoded at an eighth of their size: the whole file is still read, so that what is missing is missed.

    Raises:
        ImageError: see :func:`read_image`.
    """
    image, name = _open(source)
    _require_size(image, name, max_pixels)
    image.draft(None, (1, 1))
    _load(image, name)


def _reduce(image: Image.Image, least_side: int) -> None:
    """Tell the decoder of a JPEG; other formats know no sizes but their own."""
    divisor = next((divisor for divisor in (8, 4, 2) if -(-min(image.size) // divisor) >= least_side), None)
    if divisor is not None:
        image.draft(None, (image.width // divisor, image.height // divisor))


def _require_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width == 0 or height == 0:
        raise ImageError(f"{name} is empty: {width} x {height} pixels.")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}. "
            "Scale it down before, or raise the limit."
        )


def _load(image: Image.Image, name: str) -> Image.Image:
    try:
        return _to_rgb(image, name)
    except ImageError:
        raise
    # Pillow's decoders raise whatever the damage leads to: OSError, SyntaxError, ValueError, struct.error, IndexError…
    except Exception as error:
        raise ImageError(f"{name} is damaged: {error}. Expected a complete {image.format or 'image'} file.") from error


def _open(source: str | os.PathLike[str] | bytes) -> tuple[Image.Image, str]:
    if isinstance(source, bytes):
        name = f"the image ({len(source):,} bytes)"
        data = source
    else:
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise ImageError(f"Cannot read {name}: {error.strerror or error}.") from error
        except ValueError as error:  # a NUL, or a character that no file name can have
            raise ImageError(f"Cannot read {name!r}: {error}.") from error
    if not data:
        raise ImageError(f"{name} is empty. Expected a {', '.join(FORMATS)} file.")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS), name
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is too large for Pillow (PIL.Image.MAX_IMAGE_PIXELS): {error}.") from error
    except Exception as error:
        raise ImageError(f"{name} is not a picture that can be read. Expected {', '.join(FORMATS)}.") from error


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"Found an array of {array.dtype} with shape {tuple(array.shape)}. Expected uint8 with axes "
            "[height, width] or [height, width, channel] and 1, 3 (RGB) or 4 (RGB + alpha) channels."
        )
    if array.ndim == 3 and channels == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    image.load()
    upright = _upright(image)
    if upright.mode == "RGB" and "transparency" not in upright.info:
        return upright
    if upright.mode in _SIXTEEN_BIT:
        values = np.asarray(upright).astype(np.uint16)
        upper = (values >> 8).astype(np.uint8)
        if isinstance(transparent := upright.info.get("transparency"), int):
            upper[values == transparent] = 255
        return Image.fromarray(upper).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ImageError(
            f"{name} has 32 bit grey pixels (mode {upright.mode}), whose black and white are not declared. "
            "Expected 8 or 16 bits per channel; convert it before."
        )
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return upright.convert("RGB")


_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Pillow's `exif_transpose` also rewrites the EXIF block, and fails on odd ones."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a damaged EXIF block does not damage the pixels, and says nothing about their orientation
        orientation = None
    method = _ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = image.info
    return turned
