"""The pixels that a model sees: torchvision's `ImageClassification` is the oracle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from edgewright.runtime.errors import ImageError
from edgewright.runtime.images import read_image
from edgewright.runtime.parallel import Helper
from edgewright.runtime.preprocess import Preprocess, crop_box, preprocess, resize_and_crop

Interpolation = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[Any]

LARGEST_DIFFERENCE = 2
MEAN_DIFFERENCE = 0.01
"""What the docstring of resize_and_crop promises."""

TALL_MEAN_DIFFERENCE = 0.3
"""Pillow 13 shrinks a picture of more than twice its width columns first, and so does torchvision through it; our rows
come first, and the rounding in between is another one. Measured on TALL_SIZES: 0.14 to 0.26, at most 2 per pixel."""


def smooth_picture(width: int, height: int) -> Image.Image:
    """Coarse to fine structure and a little noise: spectra much like a photograph's."""
    rng = np.random.default_rng(width * 10_000 + height)
    total = np.zeros((height, width, 3))
    for cells in (2, 5, 13, 31, 80):
        grid = rng.integers(0, 256, (min(cells, height), min(cells, width), 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    pixels = (total / 5 - 127.5) * 1.6 + 127.5 + rng.normal(0, 4, total.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def torchvision_pixels(image: Image.Image, spec: Preprocess) -> Pixels:
    resized = Resize(spec.resize, InterpolationMode(spec.interpolation))(image)
    return np.asarray(CenterCrop(spec.crop)(resized)).astype(int)


def difference(image: Image.Image, spec: Preprocess) -> Pixels:
    found: Pixels = np.abs(resize_and_crop(image, spec).astype(int) - torchvision_pixels(image, spec))
    return found


def real_photographs(shared: Path, count: int) -> list[Image.Image]:
    files = sorted((shared / "data" / "clothing").glob("validation/*/*.jpg"))
    if len(files) < count:
        pytest.skip(f"needs the photographs of '{shared}/data/clothing', which this machine does not have")
    return [read_image(path) for path in files[:: len(files) // count][:count]]


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


# Agreement with torchvision

SIZES = {
    "landscape": (640, 480),
    "square": (300, 300),
    "portrait": (400, 534),
    "taller portrait": (400, 711),
    "large": (1500, 1000),
    "wide strip": (1000, 60),
    "tall strip": (60, 1000),
    "one row": (900, 1),
    "tiny": (8, 8),
    "one pixel": (1, 1),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), SIZES.values(), ids=SIZES.keys())
def test_pixels_are_torchvisions(width: int, height: int, interpolation: Interpolation) -> None:
    found = difference(smooth_picture(width, height), Preprocess(interpolation=interpolation))
    assert found.max() <= LARGEST_DIFFERENCE
    assert found.mean() < MEAN_DIFFERENCE


TALL_SIZES = [(400, 801), (400, 1200), (300, 3000), (500, 5000), (1000, 2100)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), TALL_SIZES)
def test_shrunk_picture_of_more_than_twice_its_width_is_near_torchvisions(
    width: int, height: int, interpolation: Interpolation
) -> None:
    found = difference(smooth_picture(width, height), Preprocess(interpolation=interpolation))
    assert found.max() <= LARGEST_DIFFERENCE
    assert found.mean() < TALL_MEAN_DIFFERENCE


@pytest.mark.parametrize(("resize", "crop"), [(232, 224), (224, 224), (64, 48), (342, 299)])
def test_other_sizes_agree_with_torchvision(resize: int, crop: int) -> None:
    found = difference(smooth_picture(500, 375), Preprocess(resize=resize, crop=crop))
    assert found.max() <= LARGEST_DIFFERENCE
    assert found.mean() < MEAN_DIFFERENCE


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photographs_agree_with_torchvision(shared: Path, interpolation: Interpolation) -> None:
    spec = Preprocess(interpolation=interpolation)
    found = [difference(image, spec) for image in real_photographs(shared, 20)]
    assert max(one.max() for one in found) <= LARGEST_DIFFERENCE
    assert max(one.mean() for one in found) < MEAN_DIFFERENCE


# The box


def test_crop_box_of_a_portrait_as_in_its_docstring() -> None:
    assert crop_box(400, 534, 256, 224) == pytest.approx((25.0, 90.8, 375.0, 441.6), abs=0.05)


def test_crop_box_of_a_landscape_is_that_of_the_portrait_turned() -> None:
    left, top, right, bottom = crop_box(400, 534, 256, 224)
    assert crop_box(534, 400, 256, 224) == (top, left, bottom, right)


def test_crop_box_is_all_of_a_square_without_a_margin() -> None:
    assert crop_box(8, 8, 32, 32) == (0, 0, 8, 8)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(8, 600), st.integers(8, 600))
def test_crop_box_lies_inside_the_picture(width: int, height: int, one: int, other: int) -> None:
    left, top, right, bottom = crop_box(width, height, max(one, other), min(one, other))
    assert 0 <= left < right <= width * (1 + 1e-9)
    assert 0 <= top < bottom <= height * (1 + 1e-9)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 64), st.integers(8, 64))
def test_every_size_of_picture_gives_the_models_size(width: int, height: int, one: int, other: int) -> None:
    spec = Preprocess(resize=max(one, other), crop=min(one, other))
    assert resize_and_crop(Image.new("RGB", (width, height)), spec).shape == (spec.crop, spec.crop, 3)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([8, 17, 64]), st.sampled_from(["bilinear", "bicubic"]))
def test_helper_changes_no_pixel(width: int, height: int, crop: int, interpolation: Interpolation) -> None:
    spec, image = Preprocess(resize=crop + 3, crop=crop, interpolation=interpolation), smooth_picture(width, height)
    helper = Helper()
    shared = resize_and_crop(image, spec, helper)
    helper.close()
    assert np.array_equal(shared, resize_and_crop(image, spec))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_halves_are_the_whole_but_for_rounding(interpolation: Interpolation) -> None:
    spec = Preprocess(interpolation=interpolation)
    worst, means = 0, []
    for width, height in ((400, 533), (640, 480), (1023, 767), (300, 300), (257, 900)):
        image = smooth_picture(width, height)
        left, top, right, bottom = crop_box(width, height, spec.resize, spec.crop)
        how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
        rows = image.resize((spec.crop, height), how, box=(left, 0, right, height))
        whole = np.asarray(rows.resize((spec.crop, spec.crop), how, box=(0, top, spec.crop, bottom))).astype(int)
        difference = np.abs(resize_and_crop(image, spec) - whole)
        worst, means = max(worst, int(difference.max())), [*means, float(difference.mean())]
    assert worst <= 1
    assert max(means) < 1e-3


# From a source to a tensor


def test_tensor_is_uint8_height_width_channel() -> None:
    tensor = preprocess(jpeg(smooth_picture(50, 40)), Preprocess(resize=40, crop=32))
    assert (str(tensor.dtype), tensor.shape) == ("uint8", (32, 32, 3))


def test_channels_are_red_green_blue() -> None:
    tensor = preprocess(Image.new("RGB", (20, 10), (10, 20, 30)), Preprocess(resize=8, crop=8))
    assert tensor[4, 4].tolist() == [10, 20, 30]


def test_top_left_of_the_tensor_is_top_left_of_the_picture() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, :4] = 255
    tensor = preprocess(picture, Preprocess(resize=16, crop=16))
    assert (tensor[0, 0, 0], tensor[0, 15, 0], tensor[15, 0, 0]) == (255, 0, 0)


def test_picture_of_the_models_size_passes_unchanged() -> None:
    picture = np.asarray(smooth_picture(32, 32))
    assert np.array_equal(preprocess(picture, Preprocess(resize=32, crop=32)), picture)


def test_path_and_bytes_give_the_same_tensor(tmp_path: Path) -> None:
    data = jpeg(smooth_picture(50, 40))
    (tmp_path / "picture.jpg").write_bytes(data)
    assert np.array_equal(preprocess(tmp_path / "picture.jpg", Preprocess()), preprocess(data, Preprocess()))


def test_orientation_is_applied_before_the_crop() -> None:
    upright = smooth_picture(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = jpeg(upright.transpose(Image.Transpose.ROTATE_180), exif=exif, quality=100, subsampling=0)
    spec = Preprocess(resize=32, crop=32)
    assert np.abs(preprocess(turned, spec).astype(int) - preprocess(upright, spec).astype(int)).max() <= 4


REDUCED = Preprocess(resize=64, crop=56, decode="reduced")


@pytest.mark.parametrize(
    ("width", "height", "divisor"),
    [
        (512, 700, 8),
        (511, 700, 8),
        (504, 700, 4),
        (700, 300, 4),
        (252, 900, 2),
        (127, 127, 2),
        (126, 400, 1),
        (60, 60, 1),
    ],
)
def test_reduced_decoding_keeps_the_shorter_side(width: int, height: int, divisor: int) -> None:
    image = read_image(jpeg(smooth_picture(width, height)), least_side=64)
    assert image.size == (-(-width // divisor), -(-height // divisor))
    assert divisor == 1 or min(image.size) >= 64


@pytest.mark.parametrize("size", [(512, 700), (700, 512), (1500, 1000)])
def test_reduced_decoding_changes_little(size: tuple[int, int]) -> None:
    data = jpeg(smooth_picture(*size), quality=95)
    full = preprocess(data, Preprocess(resize=64, crop=56)).astype(int)
    apart = np.abs(preprocess(data, REDUCED).astype(int) - full)
    assert 0 < apart.mean() < 3
    assert np.percentile(apart, 99) < 16


def test_only_files_of_jpegs_are_reduced() -> None:
    picture = smooth_picture(512, 512)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    lazy = Image.open(io.BytesIO(jpeg(picture)))
    for source in (buffer.getvalue(), picture, np.asarray(picture), lazy):
        assert read_image(source, least_side=64).size == (512, 512)


def test_reduced_decoding_is_turned_as_the_full_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(smooth_picture(512, 700), exif=exif.tobytes())
    apart = preprocess(data, REDUCED).astype(int) - preprocess(data, REDUCED.model_copy(update={"decode": "full"}))
    assert read_image(data, least_side=64).size == (88, 64)
    assert np.abs(apart).mean() < 3


def test_pixel_limit_is_that_of_the_file() -> None:
    with pytest.raises(ImageError, match="512 x 512"):
        read_image(jpeg(smooth_picture(512, 512)), max_pixels=512 * 512 - 1, least_side=64)


def test_pixel_limit_reaches_the_decoder() -> None:
    with pytest.raises(ImageError, match="the limit is 100"):
        preprocess(jpeg(Image.new("RGB", (20, 20))), Preprocess(), max_pixels=100)


# The specification


def test_defaults_are_torchvisions_preset() -> None:
    spec = Preprocess()
    assert (spec.resize, spec.crop, spec.interpolation) == (256, 224, "bilinear")


def test_json_round_trip_keeps_every_field() -> None:
    spec = Preprocess(resize=64, crop=48, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert Preprocess.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"letterbox": True}, "letterbox"),
        ({"resize": 224, "crop": 225}, "crop 225 is larger than resize 224"),
        ({"std": (0.2, 0.0, 0.2)}, "must be positive"),
        ({"std": (0.2, -1.0, 0.2)}, "must be positive"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"crop": 0}, "crop"),
        ({"resize": 100_000}, "resize"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"antialias": False}, "antialias"),
        ({"color": "BGR"}, "color"),
        ({"layout": "NCHW"}, "layout"),
    ],
)
def test_impossible_specification_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess(**fields)


def test_specification_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Preprocess().crop = 100  # type: ignore[misc]
