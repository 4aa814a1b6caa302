"""Random views of training pictures, each decided by (seed, view, index) alone.

So a view can be cached, repeated by a student and its teacher, or continued after an interrupt, whatever thread
renders it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from edgewright.runtime.preprocess import Preprocess

__all__ = ["Augmentation", "augment"]

_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """How far a view may be from the picture.

    Attributes:
        crop_scale: Smallest part of the area that a view may show. A crop is nearly square, so that much of an
            elongated picture may not fit in; such a picture shows its central square at the most.
        mirror: Whether half of the views are mirrored left to right.
        color_jitter: Brightness, contrast and saturation change by up to this factor either way.
        trivial: One operation of TrivialAugment at a random strength instead of the jitter.
    """

    crop_scale: float
    mirror: bool
    color_jitter: float
    trivial: bool = False


def augment(image: Image.Image, spec: Preprocess, how: Augmentation, rng: np.random.Generator) -> Image.Image:
    """A random resized crop (Szegedy et al., "Going Deeper with Convolutions", 2014), mirrored and jittered.

    Returns:
        An RGB image, spec.crop x spec.crop.
    """
    box = _random_box(image.width, image.height, how.crop_scale, rng)
    resampling = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else Image.Resampling.BILINEAR
    view = image.resize((spec.crop, spec.crop), resampling, box=box)
    if how.mirror and rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how.trivial:
        return _trivial_augment()(view, rng)
    if how.color_jitter:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            view = enhance(view).enhance(1 + rng.uniform(-how.color_jitter, how.color_jitter))
    return view


@functools.cache
def _trivial_augment() -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """Müller and Hutter, "TrivialAugment" (2021), torchvision's operations and strengths.

    torchvision draws from torch's global random state, which threads would share with training; here the view's own
    generator draws, so that a view stays the same whoever renders it.
    """
    from torchvision.transforms import v2

    operations = v2.TrivialAugmentWide(fill=128)
    space = operations._AUGMENTATION_SPACE
    names = list(space)

    def apply(view: Image.Image, rng: np.random.Generator) -> Image.Image:
        name = names[rng.integers(len(names))]
        strengths, signed = space[name]
        values = strengths(operations.num_magnitude_bins, view.height, view.width)
        strength = 0.0 if values is None else float(values[rng.integers(operations.num_magnitude_bins)])
        if signed and rng.random() < 0.5:
            strength = -strength
        changed: Image.Image = operations._apply_image_or_video_transform(
            view, name, strength, interpolation=operations.interpolation, fill=operations._fill
        )
        return changed

    return apply


def _random_box(width: int, height: int, scale: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1.0)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        box_width, box_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
