"""Random views stay inside the picture and inside their bounds, and follow from the generator alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.data.augment import Augmentation, augment

SPEC = Preprocess(resize=32, crop=32)
TRIVIAL = Augmentation(crop_scale=1.0, mirror=False, color_jitter=0.9, trivial=True)
EVERYTHING = Augmentation(crop_scale=0.35, mirror=True, color_jitter=0.2)
NOTHING = Augmentation(crop_scale=1.0, mirror=False, color_jitter=0.0)


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green grows downwards, both from 0 to 250 over the whole picture."""
    x, y = np.meshgrid(np.linspace(0, 250, width), np.linspace(0, 250, height))
    return Image.fromarray(np.stack((x, y, np.zeros_like(x)), axis=2).astype(np.uint8))


def view(image: Image.Image, how: Augmentation, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(augment(image, SPEC, how, np.random.default_rng(seed))).astype(np.int64)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 2**32))
def test_every_picture_gives_a_view_of_the_models_size(width: int, height: int, scale: float, seed: int) -> None:
    image = augment(
        Image.new("RGB", (width, height)), SPEC, Augmentation(scale, True, 0.5), np.random.default_rng(seed)
    )
    assert (image.mode, image.size) == ("RGB", (32, 32))


def test_same_generator_gives_the_same_view() -> None:
    assert np.array_equal(view(ramp(80, 60), EVERYTHING, 5), view(ramp(80, 60), EVERYTHING, 5))


def test_views_differ() -> None:
    assert len({view(ramp(80, 60), EVERYTHING, seed).tobytes() for seed in range(10)}) == 10


def test_nothing_asked_for_shows_all_of_a_square() -> None:
    assert np.array_equal(view(ramp(32, 32), NOTHING, 0), np.asarray(ramp(32, 32)))


@pytest.mark.parametrize("seed", range(5))
def test_view_shows_no_less_than_the_smallest_part(seed: int) -> None:
    shown = view(ramp(200, 200), Augmentation(0.5, False, 0.0), seed)
    width, height = (np.ptp(shown[:, :, channel]) / 250 for channel in (0, 1))
    # The outermost pixels' centres are half a pixel inside, on either side.
    assert width * height * (32 / 31) ** 2 > 0.5 * 0.95


@pytest.mark.parametrize("seed", range(5))
def test_view_is_stretched_by_a_third_at_most(seed: int) -> None:
    shown = view(ramp(200, 200), Augmentation(0.2, False, 0.0), seed)
    aspect = np.ptp(shown[:, :, 0]) / np.ptp(shown[:, :, 1])
    assert 0.72 < aspect < 1.39


def test_half_of_the_views_are_mirrored() -> None:
    mirrored = [view(ramp(32, 32), Augmentation(1.0, True, 0.0), seed)[0, 0, 0] > 100 for seed in range(200)]
    assert 70 < sum(mirrored) < 130


def test_views_are_not_mirrored_where_that_changes_the_class() -> None:
    how = Augmentation(0.35, False, 0.2)
    assert all(np.diff(view(ramp(64, 64), how, seed)[16, :, 0]).min() >= 0 for seed in range(50))


def test_color_changes_within_its_bounds() -> None:
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    levels = [view(grey, Augmentation(1.0, False, 0.2), seed)[0, 0, 0] for seed in range(100)]
    # A grey area has neither contrast nor saturation: only the brightness of 100 * (0.8 .. 1.2) shows.
    assert 79 <= min(levels) < 85
    assert 115 < max(levels) <= 120


def test_colors_stay_without_jitter() -> None:
    grey = Image.new("RGB", (50, 40), (100, 110, 120))
    assert view(grey, Augmentation(0.35, True, 0.0), 3).reshape(-1, 3).tolist() == [[100, 110, 120]] * 32 * 32


def test_bicubic_views_are_for_bicubic_models() -> None:
    def shown(spec: Preprocess) -> bytes:
        return augment(ramp(80, 60), spec, NOTHING, np.random.default_rng(0)).tobytes()

    assert shown(SPEC) != shown(SPEC.model_copy(update={"interpolation": "bicubic"}))


# TrivialAugment


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
def test_trivial_view_has_the_models_size(width: int, height: int, seed: int) -> None:
    image = augment(Image.new("RGB", (width, height)), SPEC, TRIVIAL, np.random.default_rng(seed))
    assert (image.mode, image.size) == ("RGB", (32, 32))


def test_trivial_view_follows_from_its_generator_whatever_else_draws() -> None:
    image = ramp(80, 60)
    alone = [view(image, TRIVIAL, seed) for seed in range(40)]
    torch.rand(3)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: view(image, TRIVIAL, seed), range(40)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_trivial_views_leave_torchs_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    for seed in range(20):
        view(ramp(40, 40), TRIVIAL, seed)
    assert torch.equal(torch.get_rng_state(), before)


def test_trivial_is_one_operation_in_place_of_the_jitter() -> None:
    image = ramp(32, 32)
    views = [view(image, TRIVIAL, seed) for seed in range(120)]
    untouched = [shown for shown in views if np.array_equal(shown, np.asarray(image))]
    # Identity is one of 14 operations, and others do nothing at strength 0; a jitter of 90 % would spare none.
    assert 4 <= len(untouched) <= 60
    assert len({shown.tobytes() for shown in views}) > 40


def test_trivial_moves_and_turns_both_ways() -> None:
    # The blue channel is 0 all over; where a shift or a turn uncovers the border, it is filled with grey.
    sides = set()
    for seed in range(300):
        filled = view(ramp(32, 32), TRIVIAL, seed)[:, :, 2] == 128
        if filled.all(axis=0).any():
            sides.add("left" if filled[16, 0] else "right")
    assert sides == {"left", "right"}
