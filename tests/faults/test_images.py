"""Ten thousand damaged pictures, one after another: each gets a label or an ImageError, and the process stays as it was."""

from __future__ import annotations

import gc
import io
import os
import random
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgewright
from edgewright.export.exporter import Export
from edgewright.runtime.errors import ImageError

IMAGES = 10_000
WARM_UP = 1_000
MOST_GROWTH = 32 * 2**20
"""Bytes of resident memory after the first thousand pictures. A megabyte that one in 300 keeps would be more."""
FORMATS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"optimize": True}],
    "JPEG": [{"quality": 90}, {"progressive": True}],
    "WEBP": [{"quality": 80}, {"lossless": True}],
    "BMP": [{}],
    "GIF": [{}],
    "TIFF": [{"compression": "tiff_lzw"}],
}
# Where the width begins, and how it and the height are written.
SIZES = {"PNG": (16, ">II"), "BMP": (18, "<ii"), "GIF": (6, "<HH"), "WEBP": (26, "<HH")}


def pictures() -> list[tuple[str, bytes]]:
    """Format and bytes of small pictures of all kinds of pixels."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30))
    found = []
    for form, ways in FORMATS.items():
        for options in ways:
            for image in (rgb, rgb.convert("L"), rgb.convert("P")):
                stream = io.BytesIO()
                shown = image.convert("RGB") if form in ("JPEG", "WEBP") and image.mode == "P" else image
                shown.save(stream, form, **options)
                found.append((form, stream.getvalue()))
    return found


def flip(form: str, data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(form: str, data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def repeat(form: str, data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randint(1, 200)]
    at = rng.randrange(len(data))
    data[at:at] = part * rng.randint(1, 20)


def lie_about_size(form: str, data: bytearray, rng: random.Random) -> None:
    """Mostly a little; at times just what is allowed, or much more than any memory has."""
    width, height = rng.choice([(41, 30), (40, 31), (1, 1), (0, 30), (640, 480), (1200, 900), (65_535, 65_535)])
    if form == "JPEG":
        # The height and the width come after the length and the precision of a frame.
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        struct.pack_into(">HH", data, at, height, width)
    elif form in SIZES:
        at, how = SIZES[form]
        struct.pack_into(how, data, at, width, height)
    else:
        flip(form, data, rng)


def overwrite(form: str, data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 64))
    data[start:end] = rng.randbytes(end - start)


MUTATIONS: dict[str, Callable[[str, bytearray, random.Random], None]] = {
    "image with flipped bits": flip,
    "image truncated": truncate,
    "image with a part repeated": repeat,
    "image with a wrong size": lie_about_size,
    "image with other bytes": overwrite,
}


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to count memory and open files")
def test_ten_thousand_mutated_images(digits_export: Export, faults: Any) -> None:
    rng, originals = random.Random(0), pictures()
    outcomes: Counter[tuple[str, str]] = Counter()
    kinds = list(MUTATIONS)
    for kind in kinds:
        faults.tried(kind, "predict", IMAGES // len(kinds))
    before = (0, 0)
    with edgewright.load(digits_export.bundle.path, "model.fp32", threads=1) as classifier, warnings.catch_warnings():
        # As for users, who see what Pillow warns of once, not as errors.
        warnings.simplefilter("ignore")
        for number in range(IMAGES):
            form, data = rng.choice(originals)
            kind = kinds[number % len(kinds)]
            mutated = bytearray(data)
            MUTATIONS[kind](form, mutated, rng)
            try:
                (prediction,) = classifier.predict([bytes(mutated)])
                assert 0 <= prediction.score <= 1
                outcomes[kind, "label"] += 1
            except ImageError:
                outcomes[kind, "refused"] += 1
            if number + 1 == WARM_UP:
                gc.collect()
                before = resident(), open_files()
        gc.collect()
        after = resident(), open_files()
    # Otherwise nothing was tried: all were refused at their first bytes, or none was damaged.
    assert min(outcomes[kind, "refused"] for kind in kinds) > 500, outcomes
    assert sum(outcomes[kind, "label"] for kind in kinds) > 1_000, outcomes
    assert sum(outcomes.values()) == IMAGES
    assert after[0] - before[0] < MOST_GROWTH
    assert after[1] == before[1]
