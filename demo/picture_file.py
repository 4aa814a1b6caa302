"""Gradio's picture component, as far as the file itself is concerned."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import gradio as gr

__all__ = ["picture_file"]

_LARGEST_DATA = 64 * 1024 * 1024


def picture_file(**how: Any) -> gr.Image:
    """A picture that nobody opens on its way to our own decoder; `how` is Gradio's.

    What comes out is the path of an upload, or the bytes of a picture that came as data, as a camera's frames do. Gradio's own
    component opens every file, even where it only passes the path on: what it cannot read it reports itself, with the path,
    and before our limits; frames it would decode, encode again and keep on the disk for ever; and it would take any path on
    this machine that a visitor names. A subclass would be another component to Gradio, with a frontend of its own, so one method
    of this one object is exchanged.
    """
    picture = gr.Image(type="filepath", image_mode=None, **how)
    uploads = Path(picture.GRADIO_CACHE).resolve()

    def preprocess(payload: Any) -> str | bytes | None:
        if payload is None:
            return None
        if (payload.url or "").startswith("data:"):
            return _decoded(payload.url)
        path = Path(payload.path or "").resolve()
        if not path.is_relative_to(uploads) or not path.is_file():
            raise gr.Error("Send the picture itself.", print_exception=False)
        return str(path)

    picture.preprocess = preprocess  # type: ignore[method-assign,assignment]
    return picture


def _decoded(url: str) -> bytes:
    text = url.partition(",")[2]
    if len(text) > _LARGEST_DATA:
        raise gr.Error("The picture is too large.", print_exception=False)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise gr.Error("Send the picture itself.", print_exception=False) from None
