"""Folders as people keep them become classes and splits; what cannot be used is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgewright.runtime.errors import DataError
from edgewright.train.data import ImageData, read_data

PictureFolder = Callable[[Mapping[str, int]], Path]


def read(root: Path, **fractions: float) -> ImageData:
    return read_data(str(root), seed=0, **fractions)


def names(data: ImageData, split: str) -> set[str]:
    return {sample.name for sample in data.splits[split]}


# Layouts


def test_splits_on_disk_are_kept(picture_folder: PictureFolder) -> None:
    counts = {"train/cat": 4, "train/dog": 5, "val/cat": 2, "val/dog": 1, "test/cat": 1, "test/dog": 3}
    data = read(picture_folder(counts))
    assert {f"{split}/{name}": data.counts(split)[name] for split in data.splits for name in data.classes} == counts


def test_class_folders_alone_are_split_in_three(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"cat": 10, "dog": 20}), val_fraction=0.3, test_fraction=0.3)
    assert [data.counts(split) for split in ("train", "val", "test")] == [
        {"cat": 4, "dog": 8},
        {"cat": 3, "dog": 6},
        {"cat": 3, "dog": 6},
    ]


def test_splitting_leaves_no_picture_out_and_none_in_two(picture_folder: PictureFolder) -> None:
    root = picture_folder({"cat": 11, "dog": 7})
    data = read(root)
    found = [name for split in data.splits for name in sorted(names(data, split))]
    assert sorted(found) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))


def test_missing_validation_is_split_off_from_training(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"train/cat": 10, "train/dog": 10}), val_fraction=0.2)
    assert (data.counts("train"), data.counts("val")) == ({"cat": 8, "dog": 8}, {"cat": 2, "dog": 2})


def test_missing_test_split_stays_missing(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"train/cat": 4, "train/dog": 4, "val/cat": 1}))
    assert data.splits["test"] == ()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_every_usual_name_of_the_validation_split_is_accepted(picture_folder: PictureFolder, name: str) -> None:
    data = read(picture_folder({"train/cat": 3, "train/dog": 3, f"{name}/cat": 2, f"{name}/dog": 2}))
    assert names(data, "val") == {f"{name}/{animal}/{number:02d}.jpg" for animal in ("cat", "dog") for number in (0, 1)}


def test_labels_follow_the_names_of_the_classes(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"zebra": 3, "ant": 3, "mole": 3}))
    assert data.classes == ("ant", "mole", "zebra")
    assert all(sample.name.startswith(data.classes[sample.label]) for sample in data.splits["train"])


def test_class_may_be_missing_from_validation(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"train/cat": 3, "train/dog": 3, "val/cat": 2, "test/dog": 1}))
    assert (data.counts("val"), data.counts("test")) == ({"cat": 2, "dog": 0}, {"cat": 0, "dog": 1})


def test_pictures_in_folders_below_a_class_belong_to_it(picture_folder: PictureFolder) -> None:
    data = read(picture_folder({"cat": 3, "cat/2024/may": 3, "dog": 3}))
    assert sum(data.counts(split)["cat"] for split in data.splits) == 6


def test_sample_reads_the_file_that_it_names(picture_folder: PictureFolder) -> None:
    root = picture_folder({"cat": 3, "dog": 3})
    sample = read(root).splits["train"][0]
    assert sample.read_bytes() == (root / sample.name).read_bytes()


# Files that are no pictures


@pytest.mark.parametrize("name", ["x.JPG", "x.Jpeg", "x.PNG", "x.webp", "x.bmp"])
def test_endings_of_pictures_are_known_in_any_case(picture_folder: PictureFolder, name: str) -> None:
    root = picture_folder({"train/cat": 3, "train/dog": 3, "val/cat": 1})
    (root / "val" / "cat" / "00.jpg").rename(root / "val" / "cat" / name)
    assert names(read(root), "val") == {f"val/cat/{name}"}


@pytest.mark.parametrize("name", ["notes.txt", "clip.gif", "scan.tiff", "Thumbs.db", "no ending"])
def test_other_file_is_left_out_and_named(picture_folder: PictureFolder, name: str) -> None:
    root = picture_folder({"cat": 3, "dog": 3})
    (root / "cat" / name).write_text("x")
    data = read(root)
    assert [skipped.file for skipped in data.skipped] == [f"cat/{name}"]
    assert not any(name in member for split in data.splits for member in names(data, split))


@pytest.mark.parametrize("name", [".DS_Store", "._00.jpg"])
def test_hidden_file_is_left_out_in_silence(picture_folder: PictureFolder, name: str) -> None:
    root = picture_folder({"cat": 3, "dog": 3})
    (root / "cat" / name).write_text("x")
    data = read(root)
    assert (data.skipped, sum(data.counts(split)["cat"] for split in data.splits)) == ((), 3)


def test_hidden_folder_is_not_a_class(picture_folder: PictureFolder) -> None:
    assert read(picture_folder({"cat": 3, "dog": 3, ".git": 3})).classes == ("cat", "dog")


def test_hidden_folder_below_a_class_is_left_out(picture_folder: PictureFolder) -> None:
    # Jupyter's copies of a picture: on both sides of a split, they would leak.
    data = read(picture_folder({"cat": 3, "cat/.ipynb_checkpoints": 3, "dog": 3}))
    assert sum(data.counts(split)["cat"] for split in data.splits) == 3


def test_folder_with_a_pictures_name_is_no_picture(picture_folder: PictureFolder) -> None:
    root = picture_folder({"cat": 3, "dog": 3})
    (root / "cat" / "album.jpg").mkdir()
    assert sum(read(root).counts(split)["cat"] for split in ("train", "val", "test")) == 3


# What is refused


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_missing_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=f"No folder at '{tmp_path / name}'. Expected"):
        read(tmp_path / name)


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no class folders\. Expected at least two"):
        read(tmp_path)


def test_single_class_is_refused(picture_folder: PictureFolder) -> None:
    with pytest.raises(DataError, match=r"has one class \('cat'\). Expected at least two"):
        read(picture_folder({"cat": 5}))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_empty_class_is_refused(picture_folder: PictureFolder, prefix: str) -> None:
    with pytest.raises(DataError, match="Class 'dog' is empty"):
        read(picture_folder({f"{prefix}cat": 5, f"{prefix}dog": 0}))


def test_class_without_pictures_by_their_names_is_refused(picture_folder: PictureFolder) -> None:
    root = picture_folder({"cat": 5, "dog": 0})
    (root / "dog" / "dog.gif").write_text("x")
    with pytest.raises(DataError, match="Class 'dog' is empty"):
        read(root)


@pytest.mark.parametrize("split", ["val", "test"])
def test_class_that_training_lacks_is_refused(picture_folder: PictureFolder, split: str) -> None:
    with pytest.raises(DataError, match=rf"{split}' has the class 'emu'.*cat, dog"):
        read(picture_folder({"train/cat": 3, "train/dog": 3, f"{split}/cat": 1, f"{split}/emu": 1}))


@pytest.mark.parametrize("pair", [("val", "valid"), ("val", "validation"), ("valid", "validation")])
def test_two_validation_splits_are_refused(picture_folder: PictureFolder, pair: tuple[str, str]) -> None:
    root = picture_folder({"train/cat": 3, "train/dog": 3, f"{pair[0]}/cat": 1, f"{pair[1]}/cat": 1})
    with pytest.raises(DataError, match=f"has both '{pair[0]}/' and '{pair[1]}/'"):
        read(root)


@pytest.mark.parametrize("split", ["val", "test"])
def test_split_without_training_is_refused(picture_folder: PictureFolder, split: str) -> None:
    with pytest.raises(DataError, match=f"has '{split}/' but no 'train/'"):
        read(picture_folder({f"{split}/cat": 3, f"{split}/dog": 3}))


@pytest.mark.parametrize("split", ["val", "test"])
def test_split_without_pictures_is_refused(picture_folder: PictureFolder, split: str) -> None:
    with pytest.raises(DataError, match=rf"No pictures in '.*{split}'"):
        read(picture_folder({"train/cat": 3, "train/dog": 3, f"{split}/cat": 0}))


@pytest.mark.parametrize("count", [1, 2])
def test_class_too_small_for_three_splits_is_refused(picture_folder: PictureFolder, count: int) -> None:
    with pytest.raises(DataError, match=r"Class 'dog' has only 1 picture left to split.*at least 3"):
        read(picture_folder({"cat": 5, "dog": count}))


# Names


def test_folder_named_digits_wins_over_the_built_in_dataset(
    picture_folder: PictureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(picture_folder({"digits/cat": 3, "digits/dog": 3}))
    assert read_data("digits", seed=0).classes == ("cat", "dog")


def test_origin_is_the_whole_path(picture_folder: PictureFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = picture_folder({"cat": 3, "dog": 3})
    monkeypatch.chdir(root.parent)
    assert read_data("data", seed=0).origin == str(root)


def test_clothing_photographs_have_their_published_counts(shared: Path) -> None:
    root = shared / "data" / "clothing"
    if not root.is_dir():
        pytest.skip(f"needs the photographs in '{root}', which this machine does not have")
    data = read(root)
    assert {split: len(data.splits[split]) for split in data.splits} == {"train": 3068, "val": 341, "test": 372}
