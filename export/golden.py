"""Golden vectors: a few real pictures, the exact tensors they become, and the trained model's logits for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from edgewright.export.source import ExportSource
from edgewright.runtime.manifest import GoldenVector
from edgewright.runtime.preprocess import preprocess
from edgewright.train.data import Sample

__all__ = ["GOLDEN_FOLDER", "write_golden"]

GOLDEN_FOLDER = "golden"

_LARGEST_BYTES = 1024 * 1024
"""A picture above this is passed over where a smaller one can be had: the bundle travels to small devices."""


def write_golden(source: ExportSource, count: int, bundle: Path) -> tuple[GoldenVector, ...]:
    """Write `count` golden vectors into the bundle's folder, pictures byte for byte as they are on disk.

    Pictures come from those that were not trained on, one class after the other.
    """
    folder = bundle / GOLDEN_FOLDER
    folder.mkdir()
    vectors = []
    for number, sample in enumerate(_choose(source, count)):
        data = sample.read_bytes()
        pixels = preprocess(data, source.preprocess)
        with torch.inference_mode():
            logits = source.network(torch.from_numpy(pixels.copy())[None])[0]
        with Image.open(io.BytesIO(data)) as image:
            suffix = (image.format or "img").lower().replace("jpeg", "jpg")
        picture, tensor = f"{number:03d}.{suffix}", f"{number:03d}.rgb"
        (folder / picture).write_bytes(data)
        (folder / tensor).write_bytes(np.ascontiguousarray(pixels).tobytes())
        vectors.append(
            GoldenVector(
                image=f"{GOLDEN_FOLDER}/{picture}",
                tensor=f"{GOLDEN_FOLDER}/{tensor}",
                label=source.labels[sample.label] if source.labelled else None,
                logits=tuple(float(value) for value in logits),
            )
        )
    return tuple(vectors)


def _choose(source: ExportSource, count: int) -> Sequence[Sample]:
    candidates = source.checked.get("test") or next(iter(source.checked.values()))
    order = np.random.default_rng(0).permutation(len(candidates))
    shuffled = [candidates[index] for index in order]
    seen: set[int] = set()
    fresh: list[Sample] = []
    again: list[Sample] = []
    for sample in shuffled:
        (again if sample.label in seen else fresh).append(sample)
        seen.add(sample.label)
    ranked = sorted(fresh + again, key=lambda sample: len(sample.read_bytes()) > _LARGEST_BYTES)
    return ranked[:count]
