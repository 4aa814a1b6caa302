"""Calibration pictures: from every class alike, always the same, hashed."""

from __future__ import annotations

import hashlib
from collections import Counter

from edgewright.export.calibration import choose_calibration
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.data import read_data

SPEC = Preprocess(resize=16, crop=16)


def test_classes_take_turns_even_when_one_has_far_more_pictures() -> None:
    train = read_data("digits", seed=0).splits["train"]
    lopsided = [sample for sample in train if sample.label == 0] + [sample for sample in train if sample.label == 1][:4]
    hashes = {hashlib.sha256(sample.read_bytes()).hexdigest(): sample.label for sample in lopsided}
    chosen = choose_calibration(lopsided, 12, SPEC)
    assert Counter(hashes[digest] for digest in chosen.hashes) == {0: 8, 1: 4}


def test_choice_depends_on_the_pictures_alone() -> None:
    train = read_data("digits", seed=0).splits["train"]
    first, second = choose_calibration(train, 20, SPEC), choose_calibration(train, 20, SPEC)
    assert first.hashes == second.hashes
    assert (first.pixels == second.pixels).all()
    assert first.sha256 == second.sha256


def test_fewer_pictures_than_wanted_gives_all_of_them() -> None:
    train = read_data("digits", seed=0).splits["train"][:9]
    assert choose_calibration(train, 100, SPEC).pixels.shape == (9, 16, 16, 3)
