"""The pictures that INT8 ranges are taken from: training pictures, every class alike, hashed and recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.runtime.files import sha256_of
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data import Sample

__all__ = ["CalibrationSet", "choose_calibration"]


@dataclass(frozen=True)
class CalibrationSet:
    """Pixels uint8 (N, height, width, 3), and the SHA-256 of each picture's file in the same order."""

    pixels: npt.NDArray[np.uint8]
    hashes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """One digest over all of them, whatever their order."""
        return sha256_of("\n".join(sorted(self.hashes)).encode())


def choose_calibration(samples: Sequence[Sample], count: int, spec: Preprocess) -> CalibrationSet:
    """Take `count` pictures, in turn from each class, at random but always the same."""
    groups: dict[int, list[Sample]] = defaultdict(list)
    for index in np.random.default_rng(0).permutation(len(samples)):
        groups[samples[index].label].append(samples[index])
    rounds = max(len(group) for group in groups.values())
    in_turn = [group[turn] for turn in range(rounds) for _, group in sorted(groups.items()) if turn < len(group)]
    encoded = [sample.read_bytes() for sample in in_turn[:count]]
    pixels = np.stack([preprocess(data, spec) for data in encoded])
    return CalibrationSet(pixels, tuple(sha256_of(data) for data in encoded))
