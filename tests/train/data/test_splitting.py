"""Splits are stratified, disjoint, and decided by the seed and the samples' names alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.runtime.errors import DataError
from edgewright.train.data.samples import Sample
from edgewright.train.data.splitting import split_off, subset_per_class

CLASSES = ("ant", "bee", "cow")


def samples(*counts: int) -> list[Sample]:
    return [
        Sample(b"", label, f"{CLASSES[label]}/{number}.jpg")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def labels(members: tuple[Sample, ...]) -> list[int]:
    found = Counter(sample.label for sample in members)
    return [found[label] for label in range(len(CLASSES))]


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=3),
    st.floats(0, 1, allow_nan=False),
    st.integers(0, 2**32),
)
def test_every_sample_is_on_one_side_and_every_class_on_both(counts: list[int], fraction: float, seed: int) -> None:
    whole = samples(*counts)
    rest, taken = split_off(whole, fraction, seed, CLASSES)
    assert sorted(sample.name for sample in rest + taken) == sorted(sample.name for sample in whole)
    assert {sample.label for sample in rest} == {sample.label for sample in taken} == {sample.label for sample in whole}


def test_the_fraction_is_taken_of_every_class() -> None:
    rest, taken = split_off(samples(100, 40, 10), 0.2, 0, CLASSES)
    assert (labels(rest), labels(taken)) == ([80, 32, 8], [20, 8, 2])


def test_same_seed_gives_the_same_split() -> None:
    assert split_off(samples(20, 20), 0.3, 7, CLASSES) == split_off(samples(20, 20), 0.3, 7, CLASSES)


def test_another_seed_gives_another_split() -> None:
    assert split_off(samples(20, 20), 0.3, 7, CLASSES) != split_off(samples(20, 20), 0.3, 8, CLASSES)


def test_order_in_which_samples_are_found_does_not_matter() -> None:
    shuffled = samples(20, 20, 20)
    random.Random(0).shuffle(shuffled)
    assert split_off(shuffled, 0.3, 7, CLASSES) == split_off(samples(20, 20, 20), 0.3, 7, CLASSES)


def test_classes_are_not_split_at_the_same_positions() -> None:
    _, taken = split_off(samples(20, 20), 0.3, 7, CLASSES)
    numbers = [{sample.name.partition("/")[2] for sample in taken if sample.label == label} for label in (0, 1)]
    assert numbers[0] != numbers[1]


def test_another_class_growing_leaves_a_class_as_it_was_split() -> None:
    small = split_off(samples(20, 5), 0.3, 7, CLASSES)[1]
    large = split_off(samples(20, 50), 0.3, 7, CLASSES)[1]
    assert [sample for sample in small if sample.label == 0] == [sample for sample in large if sample.label == 0]


def test_class_of_one_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="Class 'bee' has only 1 picture"):
        split_off(samples(5, 1), 0.2, 0, CLASSES)


def test_subset_takes_as_many_of_every_class_as_there_are() -> None:
    assert labels(subset_per_class(samples(10, 2, 5), 4, 0)) == [4, 2, 4]


def test_larger_subset_contains_the_smaller_one() -> None:
    smaller, larger = (subset_per_class(samples(10, 10), count, 3) for count in (2, 5))
    assert set(smaller) < set(larger)


def test_subset_depends_on_the_seed() -> None:
    assert subset_per_class(samples(50), 5, 0) != subset_per_class(samples(50), 5, 1)
