"""A CSV of path,label becomes classes and splits; what cannot be used is refused by its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgewright.runtime.errors import DataError
from edgewright.train.data import ImageData, read_data

PictureFolder = Callable[[Mapping[str, int]], Path]
Table = Callable[..., Path]


@pytest.fixture
def table(picture_folder: PictureFolder) -> Table:
    """Writes lines to list.csv beside a/00.jpg … a/05.jpg and b/00.jpg … b/05.jpg."""
    root = picture_folder({"a": 6, "b": 6})

    def write(*lines: str) -> Path:
        (root / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root / "list.csv"

    return write


def rows(split: str = "") -> list[str]:
    return [
        f"{folder}/{number:02d}.jpg,{label}{split}"
        for folder, label in (("a", "cat"), ("b", "dog"))
        for number in range(6)
    ]


def read(file: Path) -> ImageData:
    return read_data(str(file), seed=0)


def test_listed_pictures_are_split_in_three_stratified(table: Table) -> None:
    data = read(table("path,label", *rows()))
    assert [data.counts(split) for split in ("train", "val", "test")] == [
        {"cat": 4, "dog": 4},
        {"cat": 1, "dog": 1},
        {"cat": 1, "dog": 1},
    ]


def test_same_pictures_are_split_as_the_same_folder(table: Table) -> None:
    file = table("path,label", *(row.replace("cat", "a").replace("dog", "b") for row in rows()))
    assert read(file).splits == read(file.parent).splits


def test_sample_reads_the_file_that_it_names(table: Table) -> None:
    file = table("path,label", *rows())
    sample = read(file).splits["train"][0]
    assert sample.read_bytes() == (file.parent / sample.name).read_bytes()


def test_origin_is_the_file(table: Table) -> None:
    file = table("path,label", *rows())
    assert read(file).origin == str(file)


def test_given_splits_are_kept(table: Table) -> None:
    file = table(
        *("path,label,split", "a/00.jpg,cat,train", "b/00.jpg,dog,train", "a/01.jpg,cat,val", "b/01.jpg,dog,test")
    )
    data = read(file)
    assert {split: [sample.name for sample in data.splits[split]] for split in data.splits} == {
        "train": ["a/00.jpg", "b/00.jpg"],
        "val": ["a/01.jpg"],
        "test": ["b/01.jpg"],
    }


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation", " VAL "])
def test_every_usual_name_of_the_validation_split_is_accepted(table: Table, name: str) -> None:
    lines = ["a/00.jpg,cat,train", "b/00.jpg,dog,train", f"a/01.jpg,cat,{name}"]
    assert [sample.name for sample in read(table("path,label,split", *lines)).splits["val"]] == ["a/01.jpg"]


def test_missing_validation_is_split_off_and_missing_test_stays_missing(table: Table) -> None:
    data = read(table("path,label,split", *rows(",train")))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [10, 2, 0]


def test_columns_may_be_in_any_order_and_more(table: Table) -> None:
    file = table("Label , id, PATH", *(f"{label},7,{path}" for path, label in (row.split(",") for row in rows())))
    assert read(file).classes == ("cat", "dog")


def test_byte_order_mark_and_windows_line_ends_are_read(table: Table) -> None:
    file = table("")
    file.write_bytes("\r\n".join(["path,label", *rows()]).encode("utf-8-sig"))
    assert read(file).classes == ("cat", "dog")


def test_quoted_path_may_hold_a_comma(table: Table) -> None:
    file = table("path,label", *rows()[1:], '"a/x, y.jpg",cat')
    (file.parent / "a" / "00.jpg").rename(file.parent / "a" / "x, y.jpg")
    assert "a/x, y.jpg" in {sample.name for members in read(file).splits.values() for sample in members}


def test_absolute_path_is_accepted_and_named_from_the_folder_if_below(table: Table, tmp_path: Path) -> None:
    file = table("")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes((file.parent / "a" / "00.jpg").read_bytes())
    table("path,label", *rows()[1:], f"{file.parent}/a/00.jpg,cat", f"{outside},cat")
    names = {sample.name for members in read(file).splits.values() for sample in members}
    assert {"a/00.jpg", str(outside)} <= names


def test_picture_that_is_listed_twice_alike_counts_once(table: Table) -> None:
    data = read(table("path,label", *rows(), "./a/00.jpg,cat", "a/00.jpg,cat"))
    assert sum(len(members) for members in data.splits.values()) == 12


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,class", *rows()], "has no column 'label': its first line holds 'path', 'class'"),
        (["path;label", "a/00.jpg;cat"], "has no column 'path': its first line holds 'path;label'"),
        (rows(), "has no column 'path'"),
        ([""], "has no column 'path': its first line holds nothing"),
        (["path,label"], "lists no pictures"),
        (["path,label", "a/00.jpg,cat", "a/01.jpg,"], "line 3: the label is empty"),
        (["path,label", "a/00.jpg,cat", ",cat"], "line 3: the path is empty"),
        (["path,label", "a/00.jpg,cat", "a/01.jpg"], "line 3: the label is empty"),
        (["path,label", "a/00.jpg,cat", "a/01.jpg,cat,1"], "line 3: more cells than the header's 2"),
        (
            ["path,label", "a/00.jpg,cat", "a/gone.jpg,dog", "b/gone.jpg,dog"],
            "line 3: no file at '.*a/gone.jpg'.* 1 more",
        ),
        (["path,label", "a/00.jpg,cat", "a,dog"], "line 3: no file at"),
        (["path,label", *rows(), "./a/00.jpg,dog"], "line 14: 'a/00.jpg' has the label 'dog', and 'cat' in line 2"),
        (["path,label", "a/00.jpg,cat", "a/01.jpg,cat"], r"one class \('cat'\)"),
        (["path,label", 'a/00.jpg,"c', 'at"', "b/00.jpg,dog"], "line 3: the label .* line break"),
        (
            ["path,label,split", "a/00.jpg,cat,train", "b/00.jpg,dog,dev"],
            "line 3: 'dev' is no split. Expected one of: train",
        ),
        (["path,label,split", "a/00.jpg,cat,train", "b/00.jpg,dog,"], "line 3: the split is empty"),
        (
            ["path,label,split", "a/00.jpg,cat,test", "b/00.jpg,dog,val"],
            "no picture in the split 'train', only in: test, val",
        ),
        (
            ["path,label,split", "a/00.jpg,cat,train", "b/00.jpg,dog,train", "b/01.jpg,emu,test"],
            "line 4: the class 'emu' has no picture in the split 'train'",
        ),
        (
            ["path,label,split", "a/00.jpg,cat,train", "b/00.jpg,dog,train", "a/00.jpg,cat,test"],
            "line 4: 'a/00.jpg' is in the split 'test', and in 'train' in line 2",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(table: Table, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(table(*lines))


def test_line_is_counted_over_line_breaks_in_cells(table: Table) -> None:
    with pytest.raises(DataError, match="line 4: the label is empty"):
        read(table("path,label,note", 'a/00.jpg,cat,"two', 'lines"', "a/01.jpg,,"))


def test_file_in_another_encoding_is_refused(table: Table) -> None:
    file = table("")
    file.write_bytes("path,label\na/00.jpg,été\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"Cannot read .*list\.csv.*UTF-8"):
        read(file)


def test_folder_with_the_name_of_a_table_is_a_folder(picture_folder: PictureFolder) -> None:
    root = picture_folder({"x.csv/cat": 3, "x.csv/dog": 3})
    assert read(root / "x.csv").classes == ("cat", "dog")
