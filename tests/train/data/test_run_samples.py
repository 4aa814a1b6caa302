"""A run finds its very samples again, whatever kind of dataset they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgewright.runtime.errors import DataError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.data import ImageData, read_data
from edgewright.train.run import Run, RunRecord, write_samples

PictureFolder = Callable[[Mapping[str, int]], Path]


def run_on(data: ImageData, folder: Path) -> Run:
    """A run that knows its data; what it learnt is not looked at."""
    write_samples(data, folder)
    record = RunRecord(
        name="run",
        edgewright="0",
        torch="0",
        backbone="squeezenet1_1",
        classes=data.classes,
        preprocess=Preprocess(),
        strategy="head",
        note="",
        weights="none",
        weights_licence=None,
        data=data.origin,
        counts={split: data.counts(split) for split in data.splits},
        mirrored=data.mirrored,
        resize_to_crop=data.resize_to_crop,
        seed=0,
        best_epoch=None,
        val_top1=0.0,
        test_top1=None,
        seconds=0.0,
        finished_at="",
    )
    return Run(folder, record)


def contents(data: ImageData) -> dict[str, list[tuple[str, int, bytes]]]:
    return {
        split: [(sample.name, sample.label, sample.read_bytes()) for sample in members]
        for split, members in data.splits.items()
    }


def assert_found_again(data: ImageData, folder: Path) -> None:
    found = run_on(data, folder).data()
    assert contents(found) == contents(data)
    assert (found.origin, found.classes) == (data.origin, data.classes)
    assert (found.mirrored, found.resize_to_crop) == (data.mirrored, data.resize_to_crop)


def test_folder_is_found_again(picture_folder: PictureFolder, tmp_path: Path) -> None:
    assert_found_again(read_data(str(picture_folder({"cat": 6, "dog": 6})), seed=3), tmp_path / "run")


def test_table_is_found_again(picture_folder: PictureFolder, tmp_path: Path) -> None:
    root = picture_folder({"a": 6, "b": 6})
    table = root / "lists" / "list.csv"
    table.parent.mkdir()
    lines = [f"{path},{label}" for label in "ab" for path in sorted((root / label).glob("*.jpg"))[3:]]
    lines += [f"../{label}/{number:02d}.jpg,{label}" for label in "ab" for number in range(3)]
    table.write_text("\n".join(["path,label", *lines]))
    assert_found_again(read_data(str(table), seed=0), tmp_path / "run")


def test_digits_are_found_again(tmp_path: Path) -> None:
    assert_found_again(read_data("digits", seed=1), tmp_path / "run")


@pytest.mark.parametrize("name", ["two\nlines.jpg", "a\N{LINE SEPARATOR}b.jpg", 'quote".jpg', "comma, .jpg", "é.jpg"])
def test_strange_file_name_is_found_again(picture_folder: PictureFolder, tmp_path: Path, name: str) -> None:
    root = picture_folder({"cat": 4, "dog": 4})
    (root / "cat" / "00.jpg").rename(root / "cat" / name)
    assert_found_again(read_data(str(root), seed=0), tmp_path / "run")


def test_file_name_that_is_no_text_is_found_again(picture_folder: PictureFolder, tmp_path: Path) -> None:
    root = picture_folder({"cat": 4, "dog": 4})
    try:
        (root / "cat" / "00.jpg").rename(root / "cat" / "caf\udce9.jpg")
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    assert_found_again(read_data(str(root), seed=0), tmp_path / "run")


def test_picture_that_is_gone_is_named(picture_folder: PictureFolder, tmp_path: Path) -> None:
    root = picture_folder({"cat": 4, "dog": 4})
    run = run_on(read_data(str(root), seed=0), tmp_path / "run")
    (root / "cat" / "02.jpg").unlink()
    with pytest.raises(DataError, match=r"was trained on '.*cat/02\.jpg', which is gone"):
        run.data()
