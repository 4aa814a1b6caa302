"""What is odd about a file is told from one look at it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewright.train.data.fingerprint import Fingerprint, fine_detail, fingerprint
from edgewright.train.data.samples import Sample

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def look(data: bytes) -> Fingerprint:
    found = fingerprint(Sample(data, 0, "x"))
    assert isinstance(found, Fingerprint)
    return found


def with_transparency(image: Image.Image) -> bytes:
    return encoded(image.quantize(16), transparency=3)


@pytest.mark.parametrize(
    ("data", "oddity"),
    [
        (encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), "CMYK colours"),
        (encoded(Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)), "16 bit grey"),
        (encoded(Image.fromarray(PIXELS).convert("RGBA")), "an alpha channel"),
        (encoded(Image.fromarray(PIXELS).convert("LA")), "an alpha channel"),
        (with_transparency(Image.fromarray(PIXELS)), "a palette with transparency"),
        (
            encoded(Image.fromarray(PIXELS), save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]),
            "an animation, of which only the first picture counts",
        ),
    ],
)
def test_oddity_is_named(data: bytes, oddity: str) -> None:
    assert look(data).oddities == (oddity,)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_usual_pictures_have_no_oddity(mode: str) -> None:
    assert look(encoded(Image.fromarray(PIXELS).convert(mode))).oddities == ()


def test_grey_file_is_known() -> None:
    image = Image.fromarray(PIXELS)
    assert [look(encoded(image.convert(mode))).grey for mode in ("RGB", "L", "LA", "1", "P")] == [
        *(False, True, True, True, False)
    ]


def test_turned_picture_is_measured_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = look(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif))
    assert (found.orientation, found.width, found.height) == (6, 40, 60)


def test_senseless_orientation_is_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert look(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif)).orientation == 1


def test_damaged_picture_gives_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(Image.fromarray(PIXELS), "JPEG")[:-400])
    found = fingerprint(Sample(str(tmp_path / "x.jpg"), 0, "x"))
    assert isinstance(found, str)
    assert "x.jpg is damaged" in found


def test_missing_file_gives_the_reason(tmp_path: Path) -> None:
    assert (
        fingerprint(Sample(str(tmp_path / "x.jpg"), 0, "x"))
        == f"Cannot read {tmp_path}/x.jpg: No such file or directory."
    )


def test_half_of_the_bits_are_set() -> None:
    assert bin(look(encoded(Image.fromarray(PIXELS))).phash).count("1") == 32


def test_hash_of_the_mirror_image_is_foretold() -> None:
    # 64 x 64 pixels: every pixel of the transformed field is the mean of whole ones, in either direction.
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert look(encoded(image)).mirrored == look(encoded(turned)).phash


def test_detail_uses_its_whole_range_and_has_no_mean() -> None:
    detail = fine_detail(np.random.default_rng(0).uniform(0, 255, (16, 16)))
    assert np.abs(detail).max() == 127
    assert abs(detail.mean(dtype=float)) < 1


def test_slow_change_is_no_detail() -> None:
    assert not fine_detail(np.add.outer(np.linspace(0, 20, 16), np.linspace(0, 20, 16))).any()
