"""What `predict` can be given: files, folders and lists of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.runtime.errors import ImageError, UsageError
from edgewright.runtime.picture import Picture
from edgewright.runtime.sources import is_live, pictures


class Pipe:
    """Standard input with these bytes, read as far as it is asked to be."""

    def __init__(self, *lines: bytes) -> None:
        self.read = 0
        self._lines = iter(lines)
        self.buffer = self

    def readline(self, limit: int) -> bytes:
        self.read += 1
        return next(self._lines, b"")[:limit]


def names(*sources: str | Path) -> list[str]:
    return [picture.name for picture in pictures(sources)]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures in two folders, and something else."""
    for name in ("a.png", "below/b.jpg", "below/c.webp", "below/notes.txt"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / name).touch()
    return tmp_path / "album"


def test_sources_follow_each_other(album: Path) -> None:
    assert names("x.png", album, album / "a.png") == [
        "x.png",
        *(str(album / name) for name in ("a.png", "below/b.jpg", "below/c.webp")),
        str(album / "a.png"),
    ]


def test_file_is_taken_whatever_it_is_called(album: Path) -> None:
    assert names(album / "below" / "notes.txt") == [str(album / "below" / "notes.txt")]


def test_name_that_cannot_be_one_is_a_picture_that_cannot_be_read() -> None:
    assert names("a\0b") == ["a\0b"]


def test_nothing_is_read_before_it_is_needed(album: Path) -> None:
    def endless() -> Iterator[Path]:
        while True:
            yield album

    found = pictures(endless())
    assert [next(found).name for _ in range(4)][3] == str(album / "a.png")


def test_lines_of_a_list_are_paths(album: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(f"{album}\n\r\n{album}/a.png\r\n with space .png\nlast.png".encode())
    assert names(f"@{tmp_path}/list.txt") == [
        *(str(album / name) for name in ("a.png", "below/b.jpg", "below/c.webp", "a.png")),
        " with space .png",
        "last.png",
    ]


def test_standard_input_is_a_list_and_read_line_by_line(monkeypatch: pytest.MonkeyPatch, album: Path) -> None:
    pipe = Pipe(b"a.png\n", b"b.png\n", b"c.png\n")
    monkeypatch.setattr(sys, "stdin", pipe)
    found = pictures(["-"])
    assert next(found).name == "a.png"
    assert pipe.read == 1
    assert [picture.name for picture in found] == ["b.png", "c.png"]


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    (tmp_path / "table.csv").write_bytes(b"path\ncaf\xe9.png\n")
    for name in ("list.txt", "table.csv"):
        (found,) = names(f"@{tmp_path / name}")
        assert os.fsencode(found).endswith(b"caf\xe9.png")


def test_table_names_paths_from_its_own_folder(tmp_path: Path) -> None:
    table = '\ufefflabel, Path ,split\nred,a.png,test\n"blue","b, or\nc.png",test\nred,/absolute.png,test\n'
    (tmp_path / "table.csv").write_text(table, encoding="utf-8", newline="")
    assert names(f"@{tmp_path}/table.csv") == [f"{tmp_path}/a.png", f"{tmp_path}/b, or\nc.png", "/absolute.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", b"a.png\n\x89PNG\0\n", r"Line 2 of '.*list\.txt' is no file name"),
        ("list.txt", b"x" * 70_000, "Line 1 of .* is no file name"),
        ("table.csv", b"file,label\na.png,red\n", r"no column 'path': its first line holds 'file', 'label'"),
        ("table.csv", b"", "no column 'path': its first line holds nothing"),
        ("table.csv", b"path,label\na.png,red\n,red\n", "line 3: the path is empty"),
        ("table.csv", b'path\n"a.png\n', "unexpected end of data. Expected a CSV file"),
        ("table.csv", b"path\n" + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_what_is_no_list_is_one_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        names(f"@{tmp_path / name}")


@pytest.mark.parametrize("name", ["list.txt", "table.csv"])
def test_list_that_is_not_there_is_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"Cannot read the list '.*{name}': No such file"):
        names(f"@{tmp_path / name}")


def test_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read the list"):
        names(f"@{tmp_path}")


def test_numbers_are_cameras_unless_there_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [is_live(source) for source in ("0", "camera:0", "12", "a.png", "-", "0.png", "²")] == [True] * 3 + [
        False
    ] * 4
    (tmp_path / "0").touch()
    assert not is_live("0")
    assert names("0") == ["0"]


def test_camera_that_is_not_there_is_one_message() -> None:
    if sys.platform != "linux" or Path("/dev/video97").exists():
        pytest.skip("needs Linux without such a camera")
    with pytest.raises(UsageError, match="Cannot read the camera '/dev/video97': No such file"):
        names("97")


def test_picture_gives_its_content(tmp_path: Path) -> None:
    assert Picture.at(tmp_path / "a.png") == Picture(str(tmp_path / "a.png"), tmp_path / "a.png")
    assert Picture("made", lambda: b"bytes").source() == b"bytes"  # type: ignore[arg-type,return-value]
    with pytest.raises(ImageError, match="torn"):
        Picture("frame", ImageError("torn")).source()
    assert io.BytesIO(Picture("given", b"bytes").source()).read() == b"bytes"  # type: ignore[arg-type]
