"""Calibration pictures: from every class alike, always the same, hashed."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from edgewright.export.calibration import choose_calibration
from edgewright.runtime.errors import DataError
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


def test_pictures_that_int8_is_judged_on_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    train = read_data("digits", seed=0).splits["train"][:20]
    chosen = choose_calibration(train, 100, SPEC, held_out=train[:5])
    judged = {hashlib.sha256(sample.read_bytes()).hexdigest() for sample in train[:5]}
    assert len(chosen.hashes) == 15
    assert not judged & set(chosen.hashes)
    assert "5 training pictures are not calibrated on" in capsys.readouterr().err


def test_pictures_that_int8_is_judged_on_are_refused_where_they_were_given_on_purpose() -> None:
    train = read_data("digits", seed=0).splits["train"][:20]
    with pytest.raises(DataError, match=r"is the same file as .* on which INT8 is judged"):
        choose_calibration(train, 100, SPEC, held_out=train[:1], strict=True)


def test_too_few_pictures_are_refused() -> None:
    train = read_data("digits", seed=0).splits["train"][:7]
    with pytest.raises(DataError, match="7 pictures to calibrate INT8 on; expected at least 8"):
        choose_calibration(train, 100, SPEC)
