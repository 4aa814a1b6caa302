"""scikit-learn's digits as a dataset that needs no download."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edgewright.runtime.images import read_image
from edgewright.train.data import ImageData, read_data


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return read_data("digits", seed=0)


def test_every_digit_is_in_one_split(digits: ImageData) -> None:
    found = sorted(sample.name for members in digits.splits.values() for sample in members)
    assert found == [f"digits/{number:04d}.png" for number in range(1797)]


def test_classes_are_the_ten_digits(digits: ImageData) -> None:
    assert digits.classes == tuple("0123456789")


def test_splits_have_their_fractions(digits: ImageData) -> None:
    shares = [len(digits.splits[split]) / 1797 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.01)


def test_every_split_has_every_digit_about_as_often(digits: ImageData) -> None:
    for split in digits.splits:
        counts = digits.counts(split).values()
        assert max(counts) / min(counts) < 1.2


def test_picture_shows_scikit_learns_pixels(digits: ImageData) -> None:
    bunch = load_digits()
    for sample in digits.splits["test"][:20]:
        number = int(sample.name[7:11])
        grey = np.asarray(read_image(sample.source))[:, :, 0]
        assert np.abs(grey / 255 * 16 - bunch.images[number]).max() < 0.04
        assert sample.label == bunch.target[number]


def test_picture_is_eight_pixels_square(digits: ImageData) -> None:
    image = read_image(digits.splits["train"][0].source)
    assert isinstance(image, Image.Image)
    assert image.size == (8, 8)


def test_mirrored_digits_are_no_digits(digits: ImageData) -> None:
    assert not digits.mirrored


def test_border_of_a_digit_must_not_be_cut_off(digits: ImageData) -> None:
    assert digits.resize_to_crop


def test_seed_decides_the_split(digits: ImageData) -> None:
    assert read_data("digits", seed=0).splits == digits.splits
    assert read_data("digits", seed=1).splits["val"] != digits.splits["val"]
