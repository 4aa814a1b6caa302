"""The pictures that INT8 ranges are taken from: training pictures, every class alike, hashed and recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.runtime.console import notice
from edgewright.runtime.errors import DataError
from edgewright.runtime.files import sha256_of
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data import Sample

__all__ = ["FEWEST", "CalibrationSet", "choose_calibration"]


@dataclass(frozen=True)
class CalibrationSet:
    """Pixels uint8 (N, height, width, 3), and the SHA-256 of each picture's file in the same order."""

    pixels: npt.NDArray[np.uint8]
    hashes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """One digest over all of them, whatever their order."""
        return sha256_of("\n".join(sorted(self.hashes)).encode())


FEWEST = 8
"""Pictures; fewer say nothing about what activations range over."""


def choose_calibration(
    samples: Sequence[Sample], count: int, spec: Preprocess, held_out: Iterable[Sample] = (), *, strict: bool = False
) -> CalibrationSet:
    """Take `count` pictures, in turn from each class, at random but always the same.

    Args:
        samples: To choose from.
        count: How many.
        spec: How they are prepared.
        held_out: Pictures that the artefacts will be judged on. Ranges taken from them would flatter INT8, so that the
            same file is never chosen.
        strict: Whether the same file among `samples` is an error.

    Raises:
        DataError: too few pictures are left, or, if `strict`, some are held out.
    """
    judged = {sha256_of(sample.read_bytes()): sample.name for sample in held_out}
    groups: dict[int, list[Sample]] = defaultdict(list)
    for index in np.random.default_rng(0).permutation(len(samples)):
        groups[samples[index].label].append(samples[index])
    rounds = max((len(group) for group in groups.values()), default=0)
    in_turn = [group[turn] for turn in range(rounds) for _, group in sorted(groups.items()) if turn < len(group)]
    encoded: list[bytes] = []
    left_out = 0
    for sample in in_turn:
        data = sample.read_bytes()
        if (name := judged.get(sha256_of(data))) is None:
            encoded.append(data)
        elif strict:
            raise DataError(
                f"The calibration picture '{sample.name}' is the same file as '{name}', on which INT8 is judged. Give "
                "training pictures with --calibration, none of validation or test."
            )
        else:
            left_out += 1
        if len(encoded) == count:
            break
    if left_out:
        notice(f"{left_out} training pictures are not calibrated on: the same files are in validation or test")
    if len(encoded) < FEWEST:
        raise DataError(
            f"{len(encoded)} pictures to calibrate INT8 on; expected at least {FEWEST}, better 200. "
            "Give a folder with --calibration DATA, or ask for --precisions fp32 only."
        )
    pixels = np.stack([preprocess(data, spec) for data in encoded])
    return CalibrationSet(pixels, tuple(sha256_of(data) for data in encoded))
