"""Stratified, seeded splits."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from edgewright.runtime.errors import DataError
from edgewright.train.data.samples import Sample

__all__ = ["split_off", "subset_per_class"]


def _by_class(samples: Sequence[Sample], seed: int) -> dict[int, list[Sample]]:
    """Samples per label in a random order that depends on `seed` and on the names alone."""
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.name):
        groups[sample.label].append(sample)
    for label, group in groups.items():
        random.Random(f"{seed}/{label}").shuffle(group)
    return dict(sorted(groups.items()))


def split_off(
    samples: Sequence[Sample], fraction: float, seed: int, classes: Sequence[str]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Divide `samples` into (rest, taken), `fraction` of every class taken, at least one on either side.

    Raises:
        DataError: a class has a single picture, which cannot be on both sides.
    """
    rest: list[Sample] = []
    taken: list[Sample] = []
    for label, group in _by_class(samples, seed).items():
        if len(group) < 2:
            raise DataError(
                f"Class '{classes[label]}' has only {len(group)} picture left to split. Every class needs at least 3 "
                "(one each to train, validate and test). Add pictures or remove the class."
            )
        count = min(len(group) - 1, max(1, round(len(group) * fraction)))
        taken += group[:count]
        rest += group[count:]
    return tuple(rest), tuple(taken)


def subset_per_class(samples: Sequence[Sample], per_class: int, seed: int) -> tuple[Sample, ...]:
    """At most `per_class` samples of every class, drawn with `seed`."""
    return tuple(sample for group in _by_class(samples, seed).values() for sample in group[:per_class])
