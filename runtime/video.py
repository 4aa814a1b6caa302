"""Frames of video files and cameras, one after the other, through FFmpeg's libraries (PyAV)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgewright.runtime.errors import ImageError, UsageError
from edgewright.runtime.extras import require
from edgewright.runtime.images import MAX_PIXELS
from edgewright.runtime.picture import Picture

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["VIDEO_EXTENSIONS", "camera_frames", "is_camera", "is_video", "video_frames"]

VIDEO_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"})
"""File name endings (lower case) that are taken for videos."""

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"
"""What FFmpeg may take a file for. Among the others are playlists, which make it open files and addresses they name."""

_CAMERA = "camera:"


def is_camera(source: str) -> bool:
    """Whether this names a camera: `camera:0`, or just `0`."""
    return source.startswith(_CAMERA) or (source.isascii() and source.isdigit())


def is_video(path: str) -> bool:
    """Whether the name is that of a video file."""
    return os.path.splitext(path)[1].lower() in VIDEO_EXTENSIONS  # noqa: PTH122


def video_frames(path: str, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """Every frame of a file's first video track, upright, called `path#000000`, `path#000001`, …

    Times are those in the file. A frame that cannot be decoded is a picture with an error, and so is, as the last one, a
    file that cannot be read or read on.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    require("video", "av")
    import av

    av.logging.set_level(None)  # it would speak through Python's logging, from FFmpeg's threads
    number = 0
    try:
        # The prefix keeps FFmpeg from taking a name such as `concat:x` for an address.
        options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        with av.open(f"file:{path}", options=options) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                yield Picture(path, ImageError(f"{path} has no video track."))
                return
            codec = stream.codec_context
            if codec.width * codec.height > max_pixels:
                yield Picture(path, ImageError(_too_large(path, codec, max_pixels)))
                return
            codec.options = {"max_pixels": str(max_pixels)}
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    yield Picture(
                        _frame(path, number), ImageError(f"{_frame(path, number)} is damaged: {error.strerror}.")
                    )
                    number += 1
                    continue
                for frame in frames:
                    yield Picture(_frame(path, number), _Lazy(frame), frame.time)
                    number += 1
    except av.FFmpegError as error:
        name = _frame(path, number) if number else path
        yield Picture(name, ImageError(f"Cannot read {name}: {error.strerror}. Expected a video file."))


def camera_frames(source: str) -> Iterator[Picture]:
    """Frames of a camera (`camera:0` is /dev/video0) without end, with the seconds since the first.

    Raises:
        MissingExtraError: PyAV is not installed.
        UsageError: no such camera, it is in use, or it went away.
    """
    require("video", "av")
    import av

    if sys.platform != "linux":
        raise UsageError(
            f"Cameras are read through Video4Linux, which {sys.platform} does not have; give a video file."
        )
    av.logging.set_level(None)
    number = source.removeprefix(_CAMERA)
    device = f"/dev/video{number}" if number.isdigit() else number
    start: float | None = None
    try:
        with av.open(device, format="v4l2") as container:
            for count, frame in enumerate(container.decode(video=0)):
                time_s: float | None = frame.time
                if start is None:
                    start = time_s
                since = None if time_s is None or start is None else time_s - start
                yield Picture(_frame(f"{_CAMERA}{number}", count), _Lazy(frame), since)
    except av.FFmpegError as error:
        raise UsageError(f"Cannot read the camera '{device}': {error.strerror}.") from error


class _Lazy:
    """A decoded frame that becomes RGB when a worker asks for it: the colours are a third of the work."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __call__(self) -> Image.Image:
        from PIL import Image

        image: Image.Image = self._frame.to_image()
        turn = round(self._frame.rotation) % 360
        transpose = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
        return image.transpose(transpose[turn]) if turn in transpose else image


def _frame(path: str, number: int) -> str:
    return f"{path}#{number:06d}"


def _too_large(path: str, codec: Any, max_pixels: int) -> str:
    return (
        f"{path} has frames of {codec.width} x {codec.height} = {codec.width * codec.height:,} pixels; the limit is "
        f"{max_pixels:,}."
    )
