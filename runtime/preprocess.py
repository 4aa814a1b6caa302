"""The one function that turns a picture into the tensor a model sees.

Training's evaluation, export, calibration, runtime, server and demo all call :func:`preprocess`; nothing else in
edgewright resizes or crops for inference. Normalisation is not here: it lives inside the exported graph.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from edgewright.runtime.images import MAX_PIXELS, ImageSource, read_image
from edgewright.runtime.parallel import Helper

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Preprocess",
    "crop_box",
    "in_layout",
    "preprocess",
    "resize_and_crop",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per-channel statistics, RGB in 0..1, that torchvision's weights were trained with."""

Channels = tuple[float, float, float]


class Preprocess(BaseModel):
    """What happens to a picture before the engine; part of the manifest.

    `resize` and `crop` mean what they mean in torchvision's `ImageClassification` preset: the shorter side becomes
    `resize` pixels, then the central square of `crop` pixels is taken. `mean` and `std` (RGB, for pixels scaled to
    0..1) are applied inside the graph and stand here for the record. `decode` "reduced" lets a JPEG that is much larger
    than that be decoded at a half, a quarter or an eighth of its size, see :func:`edgewright.runtime.images.read_image`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: int = Field(256, ge=8, le=4096)
    crop: int = Field(224, ge=8, le=4096)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: Literal[True] = True
    decode: Literal["full", "reduced"] = "full"
    color: Literal["RGB"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    @property
    def least_side(self) -> int | None:
        """Pixels that the shorter side must keep in decoding; None: all.

        Twice what is wanted: the resize that follows then still averages, which hides how the decoder has (Pillow's
        `thumbnail` keeps the same `reducing_gap`).
        """
        return 2 * self.resize if self.decode == "reduced" else None

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be positive")
        return self


_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def crop_box(width: int, height: int, resize: int, crop: int) -> tuple[float, float, float, float]:
    """The part of a width x height picture that ends up in the tensor: (left, top, right, bottom) in source pixels.

    Resizing the shorter side to `resize` and cropping the central `crop` pixels sees just this box. Sizes and offsets
    are rounded as torchvision's `Resize` and `CenterCrop` round them, so (400, 534) with 256 / 224 resizes to
    (256, 341), crops at (16, 58) and gives the box (25.0, 90.8, 375.0, 441.6).
    """
    if width <= height:
        new_width, new_height = resize, max(resize, int(resize * height / width))
    else:
        new_width, new_height = max(resize, int(resize * width / height)), resize
    left, top = round((new_width - crop) / 2.0), round((new_height - crop) / 2.0)
    x, y = width / new_width, height / new_height
    return left * x, top * y, (left + crop) * x, (top + crop) * y


_WORTH_SHARING = 100_000
"""Pixels, of the picture's part and of the result together."""


def resize_and_crop(image: Image.Image, spec: Preprocess, helper: Helper | None = None) -> npt.NDArray[np.uint8]:
    """The pixels that the model sees: the box of :func:`crop_box`, resampled with antialiasing.

    The upper and the lower half are made one by one, or both at once if there is a helper to take one: two parts of the
    box, each resampled first along rows, then along columns, and only the rows that the result needs. The order is part of
    the definition: left to itself, Pillow picks the cheaper one, and which that is depends on the picture and on Pillow's
    version. So are the halves, which round a position otherwise now and then: they differ from the whole by at most 1 of
    255, and by less than 0.001 on average.

    It differs from torchvision's resize-then-crop on a Pillow image, which rounds to integers in between, by at most 2
    of 255 and less than 0.01 on average; only for pictures more than twice as tall as wide, where Pillow resizes
    columns first, by 0.3 on average. Tests hold all of it.

    Args:
        image: RGB.
        spec: What is wanted.
        helper: A thread for the lower half; the pixels are the same without it.

    Returns:
        uint8, axes [height, width, channel], shape (crop, crop, 3).
    """
    left, top, right, bottom = crop_box(image.width, image.height, spec.resize, spec.crop)
    half = spec.crop // 2
    middle = top + (bottom - top) * half / spec.crop
    pixels = np.empty((spec.crop, spec.crop, 3), np.uint8)

    def upper() -> None:
        _resample(image, (left, top, right, middle), spec.interpolation, pixels[:half])

    def lower() -> None:
        _resample(image, (left, middle, right, bottom), spec.interpolation, pixels[half:])

    # To hand half of a small picture over takes longer than to resize it.
    if helper is None or (right - left) * (bottom - top) + spec.crop**2 < _WORTH_SHARING:
        upper()
        lower()
    else:
        helper.share(upper, lower)
    return pixels


def _resample(
    image: Image.Image, box: tuple[float, float, float, float], interpolation: str, pixels: npt.NDArray[np.uint8]
) -> None:
    """Fill `pixels`, [height, width, channel], with a part of the image."""
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    # Bicubic, the wider filter, reaches 2 output pixels up and down; one more row for rounding.
    reach = 2 * max(1.0, (bottom - top) / height) + 1
    first, last = max(0, int(top - reach)), min(image.height, int(bottom + reach) + 1)
    resampling = _RESAMPLING[interpolation]
    strip = image.resize((width, last - first), resampling, box=(left, first, right, last))
    pixels[:] = np.asarray(strip.resize((width, height), resampling, box=(0, top - first, width, bottom - first)))


def preprocess(source: ImageSource, spec: Preprocess, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode, orient, resize and crop.

    Returns:
        uint8 pixels, axes [height, width, channel], shape (crop, crop, 3), channels RGB.

    Raises:
        ImageError: see :func:`edgewright.runtime.images.read_image`.
    """
    return resize_and_crop(read_image(source, max_pixels=max_pixels, least_side=spec.least_side), spec)


def in_layout(pixels: npt.NDArray[np.uint8], layout: Literal["NHWC", "NCHW"]) -> npt.NDArray[np.uint8]:
    """Pixels (N, height, width, 3) as an artefact's input wants them; a copy unless they are so already.

    The copy takes 0.05 ms at 224 px. Some engines take a quarter of a millisecond for the same inside the graph.
    """
    return pixels if layout == "NHWC" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
