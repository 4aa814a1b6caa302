"""Walking folders: the pictures that `pictures_in` finds, in its order, without holding them all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.runtime.folders import pictures_in
from edgewright.runtime.walking import walk_pictures

NAMES = st.text(st.sampled_from("ab-/.é \n"), min_size=1, max_size=6).map(
    lambda text: "/".join(part for part in text.split("/") if part.strip(".")) or "a"
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@given(st.lists(NAMES, max_size=12), st.integers(1, 4))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_is_that_of_the_sorted_list(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], in_memory: int
) -> None:
    root = tmp_path_factory.mktemp("tree")
    touch(root, *(f"{name}.png" for name in names))
    assert list(walk_pictures(str(root), in_memory)) == [str(path) for path in pictures_in(root)]


def test_folder_comes_where_its_name_belongs(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/z.jpg", "a-b/a.jpg", "a.png", "c/d/e.webp", "c/notes.txt")
    found = [os.path.relpath(path, tmp_path) for path in walk_pictures(str(tmp_path))]
    assert found == ["a/z.jpg", "a-b/a.jpg", "a.png", "b.png", "c/d/e.webp"]


@pytest.mark.parametrize("in_memory", [1, 7, 49, 50, 51])
def test_more_names_than_fit_are_sorted_all_the_same(tmp_path: Path, in_memory: int) -> None:
    touch(tmp_path, *(f"{(7 * number) % 50:02d}.png" for number in range(50)))
    assert [Path(path).name for path in walk_pictures(str(tmp_path), in_memory)] == [f"{n:02d}.png" for n in range(50)]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "outside/b.png", "inside/a.png")
    (tmp_path / "inside" / "loop").symlink_to(tmp_path / "inside", target_is_directory=True)
    (tmp_path / "inside" / "other").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "outside" / "b.png")
    (tmp_path / "inside" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    assert [Path(path).name for path in walk_pictures(str(tmp_path / "inside"))] == ["a.png", "link.png"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.png", ".cache/a.png", "._a.jpg", "a.png")
    assert [Path(path).name for path in walk_pictures(str(tmp_path))] == ["a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_survive_the_files_for_sorting(tmp_path: Path) -> None:
    names = [b"\xe9.png", b"line\nbreak.png", b'"quoted".png', b"plain.png"]
    for name in names:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).touch()
    found = [os.fsencode(path).rpartition(b"/")[2] for path in walk_pictures(str(tmp_path), 1)]
    assert sorted(found) == sorted(names)


def test_folders_may_be_deeper_than_calls(tmp_path: Path) -> None:
    depth = 1200
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    found = list(walk_pictures(str(tmp_path)))
    # Folder by folder: what deletes the tests' files later calls itself for each.
    top, spare = tmp_path / "d", tmp_path / "spare"
    for _ in range(depth - 1):
        (top / "d").rename(spare)
        top.rmdir()
        spare.rename(top)
    assert [path.count("/d") for path in found] == [str(tmp_path).count("/d") + depth]


def test_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        list(walk_pictures(str(tmp_path / "nowhere")))
