"""One picture among many: what it is called, and how to get at it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from edgewright.runtime.errors import ImageError
from edgewright.runtime.images import ImageSource

__all__ = ["Picture"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with a name.

    Attributes:
        name: A path, or `video.mp4#000123` for a frame.
        content: What :func:`~edgewright.runtime.images.read_image` takes, a function that gives it, or why there is none.
        time_s: When it is shown, for a frame, in seconds from the start.
    """

    name: str
    content: ImageSource | Callable[[], Image.Image] | ImageError
    time_s: float | None = None

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Picture:
        """The file at `path`."""
        return cls(os.fspath(path), path)

    def source(self) -> ImageSource:
        """The picture, to be read.

        Raises:
            ImageError: there is none.
        """
        if isinstance(self.content, ImageError):
            raise self.content
        return self.content() if callable(self.content) else self.content
