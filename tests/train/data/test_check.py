"""Damaged pictures are found before the work starts, named, counted and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgewright.runtime.errors import DataError
from edgewright.train.data import ImageData, read_data
from edgewright.train.data.check import readable, without_damaged

PictureFolder = Callable[[Mapping[str, int]], Path]

LAYOUT = {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 1, "test/dog": 1}


def damage(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.write_bytes(file.read_bytes()[:100])


def read(root: Path) -> ImageData:
    return read_data(str(root), seed=0)


def test_sound_data_pass_unchanged(picture_folder: PictureFolder) -> None:
    data = read(picture_folder(LAYOUT))
    assert without_damaged(data) == data


def test_damaged_picture_is_left_out_of_its_split(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    damage(root, "train/cat/01.jpg")
    checked = without_damaged(read(root))
    assert [sample.name for sample in checked.splits["train"] if sample.label == 0] == [
        "train/cat/00.jpg",
        "train/cat/02.jpg",
    ]


def test_damaged_pictures_are_kept_as_skipped_with_the_reason(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    damage(root, "train/cat/01.jpg", "val/cat/00.jpg")
    skipped = without_damaged(read(root)).skipped
    assert {one.file for one in skipped} == {"train/cat/01.jpg", "val/cat/00.jpg"}
    assert all("not a picture" in one.why or "damaged" in one.why for one in skipped)


def test_files_skipped_before_stay_skipped(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    (root / "train" / "cat" / "notes.txt").write_text("x")
    damage(root, "train/cat/01.jpg")
    assert [one.file for one in without_damaged(read(root)).skipped] == ["train/cat/notes.txt", "train/cat/01.jpg"]


def test_damaged_picture_is_named_on_stderr(picture_folder: PictureFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = picture_folder(LAYOUT)
    damage(root, "val/cat/00.jpg")
    without_damaged(read(root))
    shown = capsys.readouterr()
    assert "1 of 10 pictures cannot be read" in shown.err
    assert "val/cat/00.jpg" in shown.err
    assert shown.out == ""


def test_screen_is_not_flooded_by_many_damaged_pictures(
    picture_folder: PictureFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = picture_folder({"train/cat": 20, "train/dog": 3, "val/dog": 1})
    damage(root, *(f"train/cat/{number:02d}.jpg" for number in range(1, 16)))
    without_damaged(read(root))
    shown = capsys.readouterr().err
    assert "15 of 24 pictures" in shown
    assert "and 5 more" in shown


def test_class_with_only_damaged_pictures_is_refused(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    damage(root, *(f"train/dog/{number:02d}.jpg" for number in range(3)))
    with pytest.raises(DataError, match="Class 'dog' has no readable picture left"):
        without_damaged(read(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_with_only_damaged_pictures_is_refused(picture_folder: PictureFolder, split: str) -> None:
    root = picture_folder(LAYOUT)
    damage(root, *(str(path.relative_to(root)) for path in (root / split).rglob("*.jpg")))
    with pytest.raises(DataError, match=f"No readable picture is left in the {split} split"):
        without_damaged(read(root))


def test_test_split_with_only_damaged_pictures_is_refused(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    damage(root, "test/dog/00.jpg")
    with pytest.raises(DataError, match="No readable picture is left in the test split"):
        without_damaged(read(root))


def test_data_without_a_test_split_are_accepted(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"train/cat": 3, "train/dog": 3, "val/cat": 2}))
    assert without_damaged(data).splits["test"] == ()


def test_readable_samples_keep_their_order(picture_folder: PictureFolder) -> None:
    root = picture_folder(LAYOUT)
    damage(root, "train/cat/01.jpg")
    samples = read(root).splits["train"]
    assert readable(samples) == [sample for sample in samples if sample.name != "train/cat/01.jpg"]
