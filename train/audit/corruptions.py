"""Eight ways in which a camera or a transmission spoils a picture, each at five strengths.

Noise, blur, JPEG, brightness, contrast and pixelate follow D. Hendrycks, T. Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations" (ICLR 2019). They published two sets of strengths: for 224 px
(ImageNet-C) and, milder, for 32 px (CIFAR-10-C), since the same kernel covers seven times as much of a small picture.
Sizes in between get strengths in between (linear in the logarithm of the size), others those of the nearer set. Rotation and occlusion
do not depend on the size: angles, and shares of the area that a grey square covers (M. Zeiler, R. Fergus, "Visualizing
and Understanding Convolutional Networks", ECCV 2014).

They are applied to the pixels that the model sees, after `runtime.preprocess`, as in ImageNet-C. Before it, a strength
would mean something else for every camera: a blur of 3 pixels is gone once 4,000 pixels have become 224.

The packages that hold the published code (`imagecorruptions`, last released in 2020, and its successors) need OpenCV,
scikit-image and SciPy for what Pillow does here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

__all__ = ["CORRUPTIONS", "STRENGTHS", "corrupt"]

Pixels = npt.NDArray[np.uint8]
Five = tuple[float, float, float, float, float]

STRENGTHS = (1, 2, 3, 4, 5)

_SMALL, _LARGE = 32, 224
"""Sides in pixels that the two published sets of strengths are made for."""

_GREY = 128


def _noise(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _uint8(pixels + rng.normal(0, 255 * level, pixels.shape))


def _blur(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(level)))


def _jpeg(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=round(level))
    return np.asarray(Image.open(buffer, formats=["JPEG"]).convert("RGB"))


def _brightness(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """The value of HSV raised by `level`; a factor for all three channels keeps hue and saturation."""
    value = pixels.max(axis=2, keepdims=True).astype(np.float64)
    raised = np.minimum(value + 255 * level, 255)
    return _uint8(np.where(value > 0, pixels * (raised / np.maximum(value, 1)), raised))


def _contrast(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _uint8((pixels - mean) * level + mean)


def _pixelate(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    image = Image.fromarray(pixels)
    small = image.resize((int(image.width * level), int(image.height * level)), Image.Resampling.BOX)
    # The published code resamples upwards with BOX too, which for enlarging is the nearest neighbour.
    return np.asarray(small.resize(image.size, Image.Resampling.BOX))


def _rotate(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """`level` degrees, one way or the other; mirrored borders fill the corners, so that no black wedge is learnt from."""
    height, width = pixels.shape[:2]
    margin = math.ceil(0.21 * max(height, width))  # (sqrt(2) - 1) / 2: what 45 degrees need
    padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    turned = padded.rotate(level * rng.choice((-1, 1)), Image.Resampling.BILINEAR)
    return np.asarray(turned.crop((margin, margin, margin + width, margin + height)))


def _occlude(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """A grey square over `level` of the area, somewhere inside."""
    height, width = pixels.shape[:2]
    side = min(height, width, round(math.sqrt(level * height * width)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    covered: Pixels = pixels.copy()
    covered[top : top + side, left : left + side] = _GREY
    return covered


_CORRUPTIONS: dict[str, tuple[Callable[[Pixels, float, np.random.Generator], Pixels], Five, Five]] = {
    # name: function, strengths 1..5 at 32 px, strengths 1..5 at 224 px
    "noise": (_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),  # deviation, of 1
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),  # deviation in pixels
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),  # quality
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),  # added, of 1
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),  # factor
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),  # factor of the side
    "rotate": (_rotate, (5, 10, 15, 25, 40), (5, 10, 15, 25, 40)),  # degrees
    "occlude": (_occlude, (0.05, 0.1, 0.2, 0.3, 0.4), (0.05, 0.1, 0.2, 0.3, 0.4)),  # share of the area
}

CORRUPTIONS = tuple(_CORRUPTIONS)


def corrupt(pixels: Pixels, name: str, strength: int, *, seed: int, index: int) -> Pixels:
    """The picture spoilt; what is random depends on (seed, name, strength, index) alone.

    Args:
        pixels: uint8 RGB, axes [height, width, channel].
        name: One of :data:`CORRUPTIONS`.
        strength: One of :data:`STRENGTHS`.
        seed: Of the whole audit.
        index: Number of the picture.

    Returns:
        uint8 RGB of the same shape.
    """
    function, small, large = _CORRUPTIONS[name]
    side = min(max(min(pixels.shape[:2]), _SMALL), _LARGE)
    position = math.log(side / _SMALL) / math.log(_LARGE / _SMALL)
    level = small[strength - 1] + position * (large[strength - 1] - small[strength - 1])
    return function(pixels, level, np.random.default_rng((seed, CORRUPTIONS.index(name), strength, index)))


def _uint8(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
