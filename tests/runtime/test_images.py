"""Every kind of picture people have becomes upright RGB; everything else becomes an ImageError that names the file."""

from __future__ import annotations

import io
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewright.runtime.errors import ImageError
from edgewright.runtime.images import read_image

Pixels = npt.NDArray[Any]
WHITE = (255, 255, 255)
ORIENTATION = 0x0112
FINEST: dict[str, Any] = {"quality": 100, "subsampling": 0}

# What a camera that was held so does to an upright picture before it stores it: the inverse of what a viewer must do.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def smooth_pixels(width: int = 40, height: int = 30) -> Pixels:
    """Gradients that differ per channel, so that a swapped axis, channel or corner shows."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 255 * (1 - x / width) * (1 - y / height))
    return np.stack(channels, axis=2).astype(np.uint8)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def handmade_png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG whose header says what we want, with kinds of pixels that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def largest_difference(image: Image.Image, pixels: Pixels) -> int:
    assert image.mode == "RGB"
    found = np.asarray(image).astype(int)
    assert found.shape == pixels.shape
    return int(np.abs(found - pixels.astype(int)).max())


# Sources and formats


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [("JPEG", FINEST, 4), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("WEBP", {}, 24), ("BMP", {}, 0)],
)
def test_accepted_formats_are_decoded(form: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = smooth_pixels()
    assert largest_difference(read_image(encode(Image.fromarray(pixels), form, **options)), pixels) <= tolerance


def test_all_kinds_of_source_give_the_same_picture(tmp_path: Path) -> None:
    pixels = smooth_pixels()
    data = encode(Image.fromarray(pixels), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    for source in (path, str(path), data, Image.open(path), Image.fromarray(pixels), pixels):
        assert largest_difference(read_image(source), pixels) == 0


def test_content_decides_and_not_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "really-a.jpg"
    path.write_bytes(encode(Image.fromarray(smooth_pixels()), "PNG"))
    assert largest_difference(read_image(path), smooth_pixels()) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_animation_gives_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(data).getpixel((4, 4)) == (255, 0, 0)


def test_several_pictures_in_a_jpeg_give_the_first() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    expected = np.full((16, 16, 3), (255, 0, 0))
    assert (
        largest_difference(read_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:])), expected) <= 2
    )


# Orientation


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize(
    ("form", "options", "tolerance"), [("JPEG", FINEST, 4), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0)]
)
def test_exif_orientation_is_applied(orientation: int, form: str, options: dict[str, Any], tolerance: int) -> None:
    upright = Image.fromarray(smooth_pixels())
    transpose = STORED_AS[orientation]
    stored = upright if transpose is None else upright.transpose(transpose)
    data = encode(stored, form, exif=exif_orientation(orientation), **options)
    assert largest_difference(read_image(data), smooth_pixels()) <= tolerance


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_meaningless_exif_orientation_is_ignored(orientation: int) -> None:
    data = encode(Image.fromarray(smooth_pixels()), "PNG", exif=exif_orientation(orientation))
    assert largest_difference(read_image(data), smooth_pixels()) == 0


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0no such thing"])
def test_unreadable_exif_does_not_spoil_the_picture(exif: bytes) -> None:
    assert read_image(encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (20, 10)


def test_odd_exif_tag_does_not_spoil_a_turned_picture() -> None:
    # Orientation 6, and an image width written as text.
    entries = struct.pack("<HHI4s", 0x0100, 2, 3, b"20\0\0") + struct.pack("<HHI4s", ORIENTATION, 3, 1, b"\6\0\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    assert read_image(encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (10, 20)


def test_orientation_of_a_pillow_image_is_applied() -> None:
    stored = Image.open(io.BytesIO(encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif_orientation(6))))
    assert read_image(stored).size == (10, 20)


def test_callers_pillow_image_is_left_as_it_was() -> None:
    stored = Image.open(io.BytesIO(encode(Image.new("L", (20, 10)), "JPEG", exif=exif_orientation(6))))
    read_image(stored)
    assert (stored.mode, stored.size, stored.getexif()[ORIENTATION]) == ("L", (20, 10), 6)


# Kinds of pixels


def test_grey_jpeg_gets_three_equal_channels() -> None:
    red, green, blue = read_image(encode(Image.fromarray(smooth_pixels()).convert("L"), "JPEG")).split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


def test_one_bit_png_becomes_black_and_white() -> None:
    checkers = np.indices((6, 6)).sum(axis=0) % 2 == 0
    expected = np.repeat(np.where(checkers, 255, 0)[:, :, None], 3, axis=2)
    assert largest_difference(read_image(encode(Image.fromarray(checkers), "PNG")), expected) == 0


def test_two_bit_grey_png_is_spread_over_the_whole_range() -> None:
    row = read_image(handmade_png(4, 1, 2, 0, b"\0" + bytes([0b00011011])))
    assert [row.getpixel((x, 0)) for x in range(4)] == [(0, 0, 0), (85, 85, 85), (170, 170, 170), WHITE]


def test_sixteen_bit_grey_png_keeps_its_upper_eight_bits() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.repeat((ramp >> 8)[:, :, None], 3, axis=2)
    assert largest_difference(read_image(encode(Image.fromarray(ramp), "PNG")), expected) == 0


def test_sixteen_bit_color_png_keeps_its_upper_eight_bits() -> None:
    pixel = handmade_png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x1234, 0x80FF, 0xFF00))
    assert read_image(pixel).getpixel((0, 0)) == (0x12, 0x80, 0xFF)


def test_big_endian_sixteen_bit_image_keeps_its_upper_eight_bits() -> None:
    assert read_image(Image.new("I;16B", (2, 2), 0x8012)).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_palette_becomes_its_colors() -> None:
    image = Image.fromarray(smooth_pixels()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert largest_difference(read_image(encode(image, "PNG")), expected) == 0


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    shown = read_image(encode(image, "PNG", transparency=0))
    assert [shown.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 200)]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_composed_over_white(form: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((255, 51, 0)):
        image.putpixel((x, 0), (200, 0, 100, alpha))
    shown = read_image(encode(image, form, lossless=True, exact=True))
    # 200 * 0.2 + 255 * 0.8 = 244, 255 * 0.8 = 204, 100 * 0.2 + 204 = 224
    assert [shown.getpixel((x, 0)) for x in range(3)] == [(200, 0, 100), (244, 204, 224), WHITE]


def test_grey_with_alpha_is_composed_over_white() -> None:
    shown = read_image(encode(Image.new("LA", (1, 1), (100, 51)), "PNG"))
    assert shown.getpixel((0, 0)) == (224, 224, 224)


@pytest.mark.parametrize(("color", "rows", "key"), [(0, b"\0\5", b"\0\5"), (2, b"\0\5\6\7", b"\0\5\0\6\0\7")])
def test_color_that_a_png_declares_transparent_becomes_white(color: int, rows: bytes, key: bytes) -> None:
    assert read_image(handmade_png(1, 1, 8, color, rows, png_chunk(b"tRNS", key))).getpixel((0, 0)) == WHITE


def test_sixteen_bit_grey_that_a_png_declares_transparent_becomes_white() -> None:
    assert read_image(handmade_png(1, 1, 16, 0, b"\0\0\5", png_chunk(b"tRNS", b"\0\5"))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("ink", "color"),
    [
        ((0, 0, 0, 0), WHITE),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk_jpeg_becomes_the_color_that_its_inks_print(
    ink: tuple[int, int, int, int], color: tuple[int, int, int]
) -> None:
    shown = read_image(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
    assert largest_difference(shown, np.full((16, 16, 3), color)) <= 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_grey_of_unknown_range_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode {mode}.*Expected 8 or 16 bits"):
        read_image(Image.new(mode, (4, 4)))


# What is refused


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PPM", "ICO"])
def test_format_that_is_not_accepted_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(Image.new("RGB", (16, 16)), form))
    with pytest.raises(ImageError, match=r"picture\.jpg is not a picture .*JPEG, PNG, WEBP, BMP"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"hello\n", "is not a picture"), (b"\xff\xd8\xff", "is not a picture")]
)
def test_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"holiday\.jpg {message}"):
        read_image(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.jpg: No such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=rf"{tmp_path.name}: Is a directory"):
        read_image(tmp_path)


def test_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ImageError, match=r"Cannot read 'picture\\x00\.jpg': embedded null"):
        read_image("picture\0.jpg")


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(ImageError, match="is empty"):
        read_image(b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_file_is_refused_by_name(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    path = tmp_path / "cut-off.img"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut-off\.img is (damaged|not a picture)"):
        read_image(path)


def test_claim_of_too_many_pixels_is_refused_before_decoding() -> None:
    bomb = handmade_png(30_000, 30_000, 8, 2, b"\0" * 1000)
    started = time.perf_counter()
    with pytest.raises(ImageError, match=r"too large|pixels; the limit is"):
        read_image(bomb)
    assert time.perf_counter() - started < 1


def test_jpeg_claim_of_too_many_pixels_is_refused_before_decoding() -> None:
    data = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    size_at = data.index(b"\xff\xc0") + 5
    data[size_at : size_at + 4] = struct.pack(">HH", 8_100, 8_100)
    with pytest.raises(ImageError, match="8100 x 8100 = 65,610,000 pixels; the limit is 64,000,000"):
        read_image(bytes(data))


def test_pixel_limit_includes_its_value() -> None:
    assert read_image(np.zeros((10, 10), np.uint8), max_pixels=100).size == (10, 10)


def test_one_row_over_the_pixel_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="10 x 11 = 110 pixels; the limit is 100"):
        read_image(np.zeros((11, 10), np.uint8), max_pixels=100)


def test_limit_holds_where_pillow_only_warns() -> None:
    # Pillow warns above MAX_IMAGE_PIXELS (89 million) and refuses above twice as many.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="10000 x 10000 = 100,000,000 pixels; the limit is 64,000,000"):
            read_image(handmade_png(10_000, 10_000, 8, 2, b""))


def test_pillows_warning_made_an_error_names_its_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"too large for Pillow \(PIL\.Image\.MAX_IMAGE_PIXELS\): .*100000000"):
            read_image(handmade_png(10_000, 10_000, 8, 2, b""))


def test_pixel_limit_raised_beyond_pillows_own_names_that() -> None:
    with pytest.raises(ImageError, match=r"too large for Pillow \(PIL\.Image\.MAX_IMAGE_PIXELS\): .*225000000"):
        read_image(handmade_png(15_000, 15_000, 8, 0, b""), max_pixels=10**9)


def test_both_limits_can_be_raised_as_far_as_one_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    # Its 15,000 rows are missing, which can be seen only by someone who begins to decode.
    with pytest.raises(ImageError, match="is damaged"):
        read_image(handmade_png(15_000, 15_000, 8, 0, b""), max_pixels=10**9)


def test_pillow_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="the image is empty: 0 x 5 pixels"):
        read_image(Image.new("RGB", (0, 5)))


# Arrays


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int64, np.bool_])
def test_array_of_another_dtype_is_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(ImageError, match=rf"array of {np.dtype(dtype)} .*Expected uint8"):
        read_image(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (3, 4, 8), (1, 4, 4, 3), (0, 4, 3), (4, 0), (4, 4, 0)])
def test_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"with shape \(.*Expected uint8 with axes"):
        read_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1)])
def test_grey_array_gets_three_equal_channels(shape: tuple[int, ...]) -> None:
    grey = np.arange(15, dtype=np.uint8).reshape(shape)
    assert largest_difference(read_image(grey), np.repeat(grey.reshape(3, 5, 1), 3, axis=2)) == 0


def test_alpha_of_an_array_is_composed_over_white() -> None:
    assert read_image(np.array([[[200, 0, 100, 51]]], np.uint8)).getpixel((0, 0)) == (244, 204, 224)


def test_view_with_strides_is_read_in_its_own_order() -> None:
    # From BGR to RGB, mirrored, every other row: what people do to an OpenCV frame.
    view = smooth_pixels()[::2, ::-1, ::-1]
    assert largest_difference(read_image(view), np.ascontiguousarray(view)) == 0


def test_picture_does_not_change_with_the_array_it_came_from() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    image = read_image(frame)
    frame[:] = 255
    assert image.getpixel((0, 0)) == (0, 0, 0)


# Strangers' files


def small_files() -> list[bytes]:
    picture = Image.fromarray(smooth_pixels(12, 9))
    turned = exif_orientation(6)
    return [
        encode(picture, "JPEG", exif=turned),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "PNG", exif=turned),
        encode(picture.quantize(8), "PNG", transparency=1),
        encode(picture.convert("RGBA"), "WEBP", lossless=True),
        encode(picture.quantize(8), "BMP"),
    ]


def with_right_checksums(png: bytes) -> bytes:
    """`png` with every chunk's CRC made right, so that a change inside gets past the first check."""
    parts, at = [png[:8]], 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        parts.append(png_chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


def decodes_or_refuses(data: bytes) -> None:
    try:
        image = read_image(data, max_pixels=1_000_000)
    except ImageError:
        return
    assert image.mode == "RGB"
    assert image.width * image.height == len(image.tobytes()) // 3 > 0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM"])
)
def test_arbitrary_bytes_are_decoded_or_refused(data: bytes, magic: bytes) -> None:
    decodes_or_refuses(magic + data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(small_files()),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 10_000),
)
def test_damaged_files_are_decoded_or_refused(whole: bytes, changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(whole)
    for position, value in changes:
        data[position % len(data)] = value
    # About half of them are also cut off.
    decodes_or_refuses(bytes(data[:end] if end < len(data) else data))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([data for data in small_files() if data.startswith(b"\x89PNG")]),
    st.lists(st.tuples(st.integers(8, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_png_of_damaged_chunks_is_decoded_or_refused(whole: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for position, value in changes:
        data[position % len(data)] = value
    decodes_or_refuses(with_right_checksums(bytes(data)))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=120))
def test_any_exif_block_is_read_or_refused(block: bytes) -> None:
    decodes_or_refuses(encode(Image.new("RGB", (8, 6)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + block))
