"""Folders of pictures: what counts as a picture, a class and a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.runtime.errors import DataError
from edgewright.runtime.folders import class_folders, is_picture, pictures_in, split_folder


def make(root: Path, *names: str) -> None:
    """Empty files, or folders where the name ends in a slash."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.Png", "a.webp", "a.bmp", "très beau.jpg", "a.b.jpg"])
def test_names_of_pictures(name: str) -> None:
    assert is_picture(Path("folder", name))


@pytest.mark.parametrize("name", ["a.txt", "a.gif", "a.tiff", "jpg", "a.jpg.part", ".a.jpg", "._a.jpg", ".jpg"])
def test_names_of_something_else(name: str) -> None:
    assert not is_picture(Path("folder", name))


def test_pictures_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a.jpg", "deep/er/c.bmp", "deep/notes.txt", "._a.jpg", "Thumbs.db")
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_in(tmp_path)]
    assert found == ["a.jpg", "b.png", "deep/er/c.bmp"]


def test_folder_with_the_name_of_a_picture_is_none(tmp_path: Path) -> None:
    make(tmp_path, "album.jpg/")
    assert pictures_in(tmp_path) == []


def test_dangling_link_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert pictures_in(tmp_path) == []


@pytest.mark.parametrize(
    ("split", "name"),
    [("train", "train"), ("val", "val"), ("val", "valid"), ("val", "validation"), ("test", "test")],
)
def test_split_is_found_by_its_names(tmp_path: Path, split: str, name: str) -> None:
    make(tmp_path, f"{name}/")
    assert split_folder(tmp_path, split) == tmp_path / name


def test_split_that_is_not_there_is_none(tmp_path: Path) -> None:
    make(tmp_path, "train/", "test")
    assert split_folder(tmp_path, "test") is None


def test_split_under_two_names_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "valid/", "validation/")
    with pytest.raises(DataError, match="both 'valid/' and 'validation/'"):
        split_folder(tmp_path, "val")


def test_classes_are_folders_in_order(tmp_path: Path) -> None:
    make(tmp_path, "dog/", "cat/", "Zebra/", "README.md", ".cache/")
    assert list(class_folders(tmp_path)) == ["Zebra", "cat", "dog"]


def test_class_leads_to_its_folder(tmp_path: Path) -> None:
    make(tmp_path, "dog/")
    assert class_folders(tmp_path) == {"dog": tmp_path / "dog"}


def test_link_to_a_folder_is_a_class(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/", "data/")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list(class_folders(tmp_path / "data")) == ["dog"]


def test_class_that_is_not_allowed_is_named(tmp_path: Path) -> None:
    make(tmp_path, "dog/", "wolf/")
    with pytest.raises(DataError, match="has the class 'wolf', which is not among: cat, dog"):
        class_folders(tmp_path, ("cat", "dog"))


def test_allowed_class_may_be_missing(tmp_path: Path) -> None:
    make(tmp_path, "dog/")
    assert list(class_folders(tmp_path, iter(["cat", "dog"]))) == ["dog"]
