"""A corruption is what its paper says, grows with its strength, and repeats."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgewright.train.audit.corruptions import CORRUPTIONS, STRENGTHS, corrupt


def photograph(side: int) -> npt.NDArray[np.uint8]:
    """Colours that change slowly, with texture on top: as in a photograph, most of the energy is in low frequencies."""
    rng = np.random.default_rng(0)
    total = np.zeros((side, side, 3))
    for cells in (2, 4, 8, 16, 32):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / cells
    return np.round(255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)


def plain(value: int, side: int = 224) -> npt.NDArray[np.uint8]:
    return np.full((side, side, 3), value, dtype=np.uint8)


def test_there_are_eight_at_five_strengths() -> None:
    assert CORRUPTIONS == ("noise", "blur", "jpeg", "brightness", "contrast", "pixelate", "rotate", "occlude")
    assert STRENGTHS == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("side", [16, 32, 48, 224])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_result_is_a_picture_of_the_same_shape(name: str, side: int) -> None:
    for strength in STRENGTHS:
        found = corrupt(photograph(side), name, strength, seed=0, index=0)
        assert (found.dtype, found.shape) == (np.uint8, (side, side, 3))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_picture_itself_is_left_alone(name: str) -> None:
    pixels = photograph(48)
    before = pixels.copy()
    corrupt(pixels, name, 5, seed=0, index=0)
    assert (pixels == before).all()


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_strength(name: str, side: int) -> None:
    pixels = photograph(side).astype(np.int64)
    damage = [
        np.mean([np.abs(corrupt(pixels.astype(np.uint8), name, strength, seed=0, index=i) - pixels) for i in range(8)])
        for strength in STRENGTHS
    ]
    assert damage[0] > 0
    assert damage == sorted(damage)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_repeats_for_the_same_seed_and_picture(name: str) -> None:
    pixels = photograph(48)
    assert (corrupt(pixels, name, 3, seed=7, index=2) == corrupt(pixels, name, 3, seed=7, index=2)).all()


@pytest.mark.parametrize("name", ["noise", "occlude"])
def test_what_is_random_differs_from_picture_to_picture_and_seed_to_seed(name: str) -> None:
    pixels = photograph(224)
    first = corrupt(pixels, name, 3, seed=0, index=0)
    assert (first != corrupt(pixels, name, 3, seed=0, index=1)).any()
    assert (first != corrupt(pixels, name, 3, seed=1, index=0)).any()


@pytest.mark.parametrize(("side", "published"), [(224, 0.12), (32, 0.06)])
def test_noise_has_the_published_deviation(side: int, published: float) -> None:
    found = corrupt(plain(128, side), "noise", 2, seed=0, index=0)
    assert found.std() / 255 == pytest.approx(published, rel=0.05)


def test_noise_of_a_size_in_between_is_in_between() -> None:
    # 85 px is half way from 32 to 224 by ratio.
    found = corrupt(plain(128, 85), "noise", 2, seed=0, index=0)
    assert found.std() / 255 == pytest.approx(0.09, rel=0.05)


def test_blur_spreads_a_point_by_the_published_deviation() -> None:
    line = plain(0)
    line[:, 112] = 255
    profile = corrupt(line, "blur", 3, seed=0, index=0)[112, :, 0].astype(np.float64)
    distance = np.arange(224) - 112
    assert np.sqrt((profile * distance**2).sum() / profile.sum()) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(("side", "strength", "quality"), [(224, 1, 25), (224, 5, 7), (32, 1, 80), (32, 5, 40)])
def test_jpeg_is_stored_with_the_published_quality(side: int, strength: int, quality: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph(side)).save(buffer, "JPEG", quality=quality)
    wanted = np.asarray(Image.open(buffer).convert("RGB"))
    assert (corrupt(photograph(side), "jpeg", strength, seed=0, index=0) == wanted).all()


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    pixels = plain(0)
    pixels[:] = (120, 60, 30)
    found = corrupt(pixels, "brightness", 2, seed=0, index=0)[0, 0] / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*(np.array((120, 60, 30)) / 255))
    assert colorsys.rgb_to_hsv(*found) == pytest.approx((hue, saturation, value + 0.2), abs=0.01)


def test_black_becomes_grey_when_brightness_is_raised() -> None:
    assert (corrupt(plain(0), "brightness", 2, seed=0, index=0) == 51).all()


def test_contrast_shrinks_around_the_mean() -> None:
    pixels = photograph(224)
    found = corrupt(pixels, "contrast", 2, seed=0, index=0)
    assert found.mean() == pytest.approx(pixels.mean(), abs=0.5)
    assert found.std(axis=(0, 1)) == pytest.approx(0.3 * pixels.std(axis=(0, 1)), rel=0.02)


def test_pixelate_leaves_so_many_blocks() -> None:
    rows = corrupt(photograph(224), "pixelate", 2, seed=0, index=0)[:, 0].astype(np.int64)
    # 224 x 0.5 rows, of which every two are alike.
    assert (rows[0::2] == rows[1::2]).all()
    assert (np.abs(np.diff(rows[::2], axis=0)).sum(axis=1) > 0).mean() > 0.9


def test_rotation_leaves_no_black_corners() -> None:
    assert (corrupt(plain(255, 48), "rotate", 5, seed=0, index=0) == 255).all()


def test_rotation_turns_by_its_angle() -> None:
    bar = plain(0, 101)
    bar[48:53] = 255
    found = corrupt(bar, "rotate", 4, seed=0, index=0)[:, :, 0].astype(np.float64)
    # The bar's middle in the columns 15 left and 15 right of the centre; 25 degrees lift one and lower the other.
    middles = [(found[:, column] * np.arange(101)).sum() / found[:, column].sum() for column in (35, 65)]
    assert abs(middles[1] - middles[0]) / 30 == pytest.approx(np.tan(np.radians(25)), abs=0.05)


@pytest.mark.parametrize(("strength", "share"), [(1, 0.05), (3, 0.2), (5, 0.4)])
def test_occluder_covers_its_share(strength: int, share: float) -> None:
    covered = (corrupt(plain(255), "occlude", strength, seed=0, index=0) == 128).all(axis=2)
    assert covered.mean() == pytest.approx(share, rel=0.02)
