"""Copies are found however they were changed; pictures that are merely alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from edgewright.runtime.images import read_image
from edgewright.train.data.duplicates import LIMIT, close_pairs, same_content, same_look
from edgewright.train.data.fingerprint import Fingerprint, fingerprint
from edgewright.train.data.samples import Sample

Change = Callable[[Image.Image], Image.Image]


def scene(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """Coarse and fine structure in colour, as a photograph has."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    for cells in (4, 12, 36):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        canvas += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(canvas.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def recompressed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=30)))


CHANGES: dict[str, Change] = {
    "recompressed": recompressed,
    "halved": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "enlarged": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR),
    "stretched": lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "darkened": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "grey": lambda image: image.convert("L"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def look(image: Image.Image | bytes) -> Fingerprint:
    found = fingerprint(Sample(image if isinstance(image, bytes) else encoded(image), 0, "x"))
    assert isinstance(found, Fingerprint)
    return found


def alike(looks: list[Fingerprint]) -> list[list[int]]:
    return same_look(
        np.array([one.phash for one in looks], dtype=np.uint64),
        np.array([one.mirrored for one in looks], dtype=np.uint64),
        np.stack([one.detail for one in looks]),
    )


def digests(looks: list[Fingerprint]) -> npt.NDArray[np.uint8]:
    return np.stack([np.frombuffer(one.digest, dtype=np.uint8) for one in looks])


@pytest.fixture(scope="module")
def scenes() -> list[Fingerprint]:
    return [look(scene(seed)) for seed in range(40)]


# Equal pixels


def test_same_pixels_in_another_format_are_the_same_content() -> None:
    image = scene(0)
    assert same_content(digests([look(image), look(scene(1)), look(encoded(image, "BMP"))])) == [[0, 2]]


def test_one_other_pixel_is_other_content() -> None:
    image = scene(0)
    changed = image.copy()
    changed.putpixel((100, 100), (1, 2, 3))
    assert same_content(digests([look(image), look(changed)])) == []


def test_same_bytes_in_another_shape_are_other_content() -> None:
    assert same_content(digests([look(Image.new("RGB", (40, 20))), look(Image.new("RGB", (20, 40)))])) == []


# The same picture, changed


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copy_is_found_among_others(scenes: list[Fingerprint], change: str) -> None:
    copies = [look(CHANGES[change](scene(seed))) for seed in range(10)]
    assert alike([*scenes, *copies]) == [[seed, 40 + seed] for seed in range(10)]


def test_copies_of_copies_are_one_group(scenes: list[Fingerprint]) -> None:
    copies = [look(CHANGES[change](scene(7))) for change in ("recompressed", "halved", "mirrored", "grey")]
    assert alike([*scenes, *copies]) == [[7, 40, 41, 42, 43]]


def test_different_scenes_are_different(scenes: list[Fingerprint]) -> None:
    assert alike(scenes) == []


def test_other_part_of_a_scene_is_another_picture(scenes: list[Fingerprint]) -> None:
    assert alike([*scenes, look(scene(0).crop((60, 40, 240, 180)))]) == []


def test_picture_that_equals_its_mirror_image_is_no_copy_of_itself() -> None:
    half = np.asarray(scene(0))[:, :120]
    symmetrical = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    assert alike([look(symmetrical), look(scene(1))]) == []


def test_empty_pictures_are_not_all_the_same() -> None:
    rng = np.random.default_rng(0)
    plain = [Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(10)]
    noisy = [Image.fromarray(rng.integers(120, 124, (64, 64, 3), dtype=np.uint8)) for _ in range(10)]
    assert alike([look(image) for image in [*plain, *noisy]]) == []


def test_same_garment_with_another_print_is_another_picture() -> None:
    def shirt(seed: int) -> Image.Image:
        """A white shape on red, always the same, with a print of its own."""
        image = Image.new("RGB", (320, 240), (150, 10, 40))
        draw = ImageDraw.Draw(image)
        draw.polygon(
            [(60, 60), (120, 30), (200, 30), (260, 60), (240, 110), (215, 95), (215, 220), (105, 220)], "white"
        )
        image.paste(scene(seed, 90, 90).convert("1", dither=Image.Dither.NONE), (115, 70))
        return image

    assert alike([look(shirt(seed)) for seed in range(20)]) == []


def test_strokes_need_more_agreement_than_photographs() -> None:
    def stroke(angle: float) -> Image.Image:
        image = Image.new("L", (112, 112))
        way = 40 * np.array([np.sin(angle), -np.cos(angle)])
        ImageDraw.Draw(image).line([*(56 - way).tolist(), *(56 + way).tolist()], fill=255, width=12)
        return image.resize((28, 28), Image.Resampling.BOX)

    assert alike([look(stroke(angle)) for angle in np.radians(range(-30, 31, 4))]) == []


@pytest.mark.slow
def test_real_photographs_are_found_again(shared: Path) -> None:
    folder = shared / "data" / "clothing" / "test"
    if not folder.is_dir():
        pytest.skip(f"needs the photographs in '{folder}', which this machine does not have")
    images = [read_image(path) for path in sorted(folder.glob("*/*.jpg"))[::6]]
    copies = [CHANGES[change](image) for change in CHANGES for image in images[:20]]
    groups = alike([look(image) for image in [*images, *copies]])
    complete = [group for group in groups if len(group) == 1 + len(CHANGES)]
    assert len(groups) == 20
    assert len(complete) >= 18


# The search


def test_search_finds_every_close_pair_and_no_other() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    for index in range(300):
        flips = rng.choice(64, rng.integers(0, LIMIT + 4), replace=False)
        hashes[index + 500] = hashes[index] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    expected = {
        (one, other)
        for one in range(1000)
        for other in range(one + 1, 1000)
        if bin(int(hashes[one] ^ hashes[other])).count("1") <= LIMIT
    }
    found = {
        (int(one), int(other))
        for ones, others in close_pairs(hashes, 1000)
        for one, other in zip(ones, others, strict=True)
    }
    assert len(expected) > 200
    assert found == expected


def test_search_leaves_out_pairs_of_mirror_images() -> None:
    hashes = np.array([1, 2, 2, 1, 3, 3], dtype=np.uint64)
    found = {
        (int(one), int(other))
        for ones, others in close_pairs(hashes, 3)
        for one, other in zip(ones, others, strict=True)
    }
    assert found == {(one, other) for one in range(3) for other in range(one + 1, 6)}


def test_search_among_many_looks_at_few_pairs() -> None:
    # 60,000 have 1.8 billion pairs: compared one by one, that takes minutes.
    hashes = np.random.default_rng(0).integers(0, 2**64, 60_000, dtype=np.uint64)
    hashes[59_999] = hashes[0]
    pairs = {
        (int(one), int(other))
        for ones, others in close_pairs(hashes, 60_000)
        for one, other in zip(ones, others, strict=True)
    }
    assert (0, 59_999) in pairs
    assert len(pairs) < 10


def test_nothing_to_compare_is_no_error() -> None:
    nothing = np.zeros(0, dtype=np.uint64)
    assert same_look(nothing, nothing, np.zeros((0, 16, 16), dtype=np.int8)) == []
