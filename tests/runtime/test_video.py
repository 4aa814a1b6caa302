"""Frames of real videos: names, times, colours, orientation; what is damaged, too large or no video."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edgewright.runtime.errors import ImageError
from edgewright.runtime.loading import load
from edgewright.runtime.picture import Picture
from edgewright.runtime.sources import pictures
from edgewright.runtime.video import video_frames

LABELS = ("red", "green", "blue", "très noir")
SIZE = (64, 48)

Paint = Callable[..., Image.Image]
Film = Callable[..., Path]


@pytest.fixture
def film(tmp_path: Path, paint: Paint) -> Film:
    """`film("a.mp4", 8)`: a video of that many frames in the colours of the classes in turn, four a second."""

    def make(name: str = "film.mp4", count: int = 8, codec: str = "mpeg4", size: tuple[int, int] = SIZE) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=4)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, 4)
            stream.gop_size = 1
            for number in range(count):
                frame = av.VideoFrame.from_image(paint(LABELS[number % 4], number, size))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


def image_of(picture: Picture) -> Image.Image:
    image = picture.source()
    assert isinstance(image, Image.Image)
    return image


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "mpeg4"), ("film.mkv", "mpeg4"), ("film.avi", "mjpeg")])
def test_frames_have_names_and_times(film: Film, name: str, codec: str) -> None:
    path = film(name, 6, codec) if codec != "mjpeg" else film(name, 6)
    found = list(video_frames(str(path)))
    assert [picture.name for picture in found] == [f"{path}#{number:06d}" for number in range(6)]
    assert [picture.time_s for picture in found] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0, 1.25], abs=0.01)


def test_frames_are_labelled(film: Film, tiny_bundle: Path) -> None:
    path = film(count=9)
    with load(tiny_bundle, "model.fp32") as classifier:
        found = [result.prediction.label for result in classifier.stream(pictures([path])) if result.prediction]
    assert found == [LABELS[number % 4] for number in range(9)]


def test_frames_are_read_as_they_are_needed(film: Film) -> None:
    path = film(count=40)
    found = video_frames(str(path))
    next(found)
    found.close()  # type: ignore[attr-defined]
    path.unlink()


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (-1, 0)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (0, -1))],
    ids=["upright", "quarter turn", "half turn", "three quarters"],
)
def test_frames_are_upright(tmp_path: Path, film: Film, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    """A phone writes what its sensor saw, and how to turn it: x' = ax + cy, y' = bx + dy (ISO 14496-12, 8.3.2)."""
    picture = Image.new("RGB", SIZE, (20, 20, 20))
    picture.paste((250, 250, 250), (0, 0, 16, 16))  # marks the corner that the sensor saw at the top left
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    data = path.read_bytes()
    one = 1 << 16
    straight = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * one for value in matrix)
    header = data.index(b"tkhd")
    at = data.index(straight, header)
    path.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + len(straight) :])
    (found,) = video_frames(str(path))
    image = image_of(found)
    assert image.size == (SIZE if matrix[0] else SIZE[::-1])
    pixels = np.asarray(image.convert("L"))
    marked = [(x, y) for x in (0, -1) for y in (0, -1) if pixels[y, x] > 128]
    assert marked == [corner]


def test_colours_are_those_that_were_filmed(film: Film, paint: Paint) -> None:
    for number, picture in enumerate(video_frames(str(film(count=3)))):
        wanted = np.asarray(paint(LABELS[number], number, SIZE), np.float64).mean((0, 1))
        np.testing.assert_allclose(np.asarray(image_of(picture), np.float64).mean((0, 1)), wanted, atol=6)


@pytest.mark.parametrize(
    "content", [b"", b"no video", b"#EXTM3U\n#EXTINF:1,\nother.mp4\n", b"ffconcat version 1.0\nfile other.mp4\n"]
)
def test_what_is_no_video_is_one_error(tmp_path: Path, film: Film, content: bytes) -> None:
    film("other.mp4")  # what the playlists name
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    (found,) = video_frames(str(path))
    assert found.name == str(path)
    with pytest.raises(ImageError, match=r"Cannot read .*bad\.mp4: .*Expected a video file"):
        found.source()


def test_video_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    (found,) = video_frames(str(tmp_path / "nowhere.mp4"))
    with pytest.raises(ImageError, match="No such file"):
        found.source()


@pytest.mark.parametrize("name", ["concat:a.mp4", "http:x.mp4", "a#b%20c.mp4"])
def test_name_is_a_file_s_whatever_it_looks_like(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    film("plain.mp4", 2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [picture.name for picture in video_frames(name)] == [f"{name}#000000", f"{name}#000001"]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (found,) = video_frames(str(path))
    with pytest.raises(ImageError, match="has no video track"):
        found.source()


def test_frames_that_are_too_large_are_refused_before_decoding(film: Film) -> None:
    (found,) = video_frames(str(film()), max_pixels=3000)
    with pytest.raises(ImageError, match="64 x 48 = 3,072 pixels; the limit is 3,000"):
        found.source()


def test_damaged_frame_is_one_error_and_the_others_go_on(film: Film, tmp_path: Path) -> None:
    path = film(count=6)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, size = packets[2]
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    found = list(video_frames(str(path)))
    bad = [picture for picture in found if isinstance(picture.content, ImageError)]
    good = [picture for picture in found if not isinstance(picture.content, ImageError)]
    assert len(good) == 5
    assert len(bad) == 1
    assert [picture.name for picture in found] == [f"{path}#{number:06d}" for number in range(6)]
    for picture in good:
        assert image_of(picture).size == SIZE


def test_torn_video_gives_what_is_left(film: Film) -> None:
    path = film("film.mkv", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = list(video_frames(str(path)))
    assert 10 < len(found) < 40
