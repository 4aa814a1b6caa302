"""`digits`: 1,797 real handwritten digits, 8 x 8 pixels, that come with scikit-learn, so no download is needed.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), as packaged by scikit-learn.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from edgewright.runtime.errors import MissingExtraError
from edgewright.train.data.samples import ImageData, Sample
from edgewright.train.data.splitting import split_off

__all__ = ["read_digits"]


def read_digits(*, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """The digits as PNG bytes, white on black as scikit-learn has them, split as a folder without splits is."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    bunch = load_digits()
    samples = []
    for number, (pixels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        # Intensities are 0..16.
        grey = np.round(pixels * (255 / 16)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, format="PNG")
        samples.append(Sample(buffer.getvalue(), int(label), f"digits/{number:04d}.png"))
    classes = tuple(str(digit) for digit in range(10))
    rest, test = split_off(samples, test_fraction, seed, classes)
    train, val = split_off(rest, val_fraction / (1 - test_fraction), seed + 1, classes)
    return ImageData("digits", classes, {"train": train, "val": val, "test": test}, mirrored=False, resize_to_crop=True)
