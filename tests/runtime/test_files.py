"""Files are complete or not there, and no name leads out of a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.runtime import files
from edgewright.runtime.errors import BundleError
from edgewright.runtime.files import atomic_directory, atomic_write, resolve_inside, sha256_of


def everything_below(folder: Path) -> dict[str, str]:
    """Relative name to text of every file, temporary ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace_folder(path: Path, text: str, error: type[BaseException] | None = None) -> None:
    with atomic_directory(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(text)
        if error is not None:
            raise error


class Interrupted(BaseException):
    """Stands for a KeyboardInterrupt, which pytest would take as meant for itself."""


def test_sha256_is_that_of_the_standard() -> None:
    # FIPS 180-2, appendix B.1
    assert sha256_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# atomic_write


def test_write_creates_file_and_folders(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b" / "file", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"\x00\xff"


def test_write_encodes_text_as_utf8_and_keeps_line_ends(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "é\r\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\r\n"


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    atomic_write(tmp_path / "file", "new")
    assert everything_below(tmp_path) == {"file": "new"}


def test_written_file_can_be_read_by_everyone(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with (tmp_path / "file").open() as reader:
        atomic_write(tmp_path / "file", "new")
        assert reader.read() == "old"


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken" / "by a folder").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        atomic_write(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# atomic_directory


def test_directory_appears_whole(tmp_path: Path) -> None:
    replace_folder(tmp_path / "deeper" / "out", "new")
    assert everything_below(tmp_path) == {"deeper/out/sub/file": "new"}


def test_directory_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out"):
        assert not (tmp_path / "out").exists()


def test_directory_replaces_all_of_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "left over").write_text("old")
    replace_folder(tmp_path / "out", "new")
    assert everything_below(tmp_path) == {"out/sub/file": "new"}


def test_older_directory_stays_readable_during_the_block(tmp_path: Path) -> None:
    replace_folder(tmp_path / "out", "old")
    with atomic_directory(tmp_path / "out"):
        assert (tmp_path / "out" / "sub" / "file").read_text() == "old"


def test_directory_can_be_entered_by_everyone(tmp_path: Path) -> None:
    replace_folder(tmp_path / "out", "new")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_exception_keeps_the_older_directory_and_cleans_up(tmp_path: Path, error: type[BaseException]) -> None:
    replace_folder(tmp_path / "out", "old")
    with pytest.raises(error):
        replace_folder(tmp_path / "out", "half", error)
    assert everything_below(tmp_path) == {"out/sub/file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_exception_without_an_older_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_directory(tmp_path / "out"):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out", "link"])
def test_file_in_the_way_of_a_directory_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").write_text("a file")
    (tmp_path / "link").symlink_to("out")
    entered = False
    with pytest.raises(BundleError, match=r"out' is a file\. Expected a folder, or nothing"):  # noqa: SIM117
        with atomic_directory(tmp_path / name):
            entered = True
    assert not entered
    assert (tmp_path / "out").read_text() == "a file"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "link"}


@pytest.mark.parametrize("exists", [True, False])
def test_link_to_a_directory_is_followed_and_its_target_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    if exists:
        replace_folder(tmp_path / "elsewhere" / "real", "old")
    (tmp_path / "out").symlink_to(Path("elsewhere", "real"))
    replace_folder(tmp_path / "out", "new")
    assert (tmp_path / "out").readlink() == Path("elsewhere", "real")
    assert everything_below(tmp_path / "elsewhere") == {"real/sub/file": "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "out"}


def test_kill_in_the_middle_keeps_the_older_directory(tmp_path: Path) -> None:
    replace_folder(tmp_path / "out", "old")
    program = (
        "import pathlib, sys, time\n"
        "from edgewright.runtime.files import atomic_directory\n"
        "with atomic_directory(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').write_text('half')\n"
        "    print('in the middle', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert everything_below(tmp_path / "out") == {"sub/file": "old"}


@pytest.mark.parametrize("left", [".out.new-abandond", ".out.old-abandond"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, left: str) -> None:
    replace_folder(tmp_path / "out", "old")
    replace_folder(tmp_path / left, "half")
    replace_folder(tmp_path / "out", "new")
    assert everything_below(tmp_path) == {"out/sub/file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_file_that_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".file.new-abandond").write_text("half")
    atomic_write(tmp_path / "file", "new")
    assert everything_below(tmp_path) == {"file": "new"}


@pytest.mark.parametrize(
    "name",
    [".another.new-abandond", ".out.new-abandoned", ".out.newer-abandond", "out.new-abandond", ".out.new-ABANDOND"],
)
def test_what_is_of_another_name_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    replace_folder(tmp_path / "out", "new")
    atomic_write(tmp_path / "file", "new")
    assert (tmp_path / name).is_dir()


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from edgewright.runtime.files import atomic_directory, atomic_file\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with atomic_directory(path / 'out') as folder, atomic_file(path / 'file') as file:\n"
        "    (folder / 'theirs').write_text('last')\n"
        "    file.write_text('last')\n"
        "    print('in the middle', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        replace_folder(tmp_path / "out", "first")
        atomic_write(tmp_path / "file", "first")
        assert everything_below(tmp_path / "out") == {"sub/file": "first"}
        process.communicate("\n")
    assert process.returncode == 0
    assert everything_below(tmp_path) == {"out/theirs": "last", "file": "last"}


def test_folder_that_a_killed_process_had_moved_away_is_put_back(tmp_path: Path) -> None:
    replace_folder(tmp_path / ".out.old-abandond", "old")
    with pytest.raises(ValueError):
        replace_folder(tmp_path / "out", "half", ValueError)
    assert everything_below(tmp_path) == {"out/sub/file": "old"}


def test_directories_are_exchanged_in_two_steps_where_one_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    replace_folder(tmp_path / "out", "old")
    replace_folder(tmp_path / "out", "new")
    assert everything_below(tmp_path) == {"out/sub/file": "new"}


@pytest.mark.parametrize("write", [atomic_write, replace_folder])
def test_full_disk_is_reported_with_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], None]
) -> None:
    def full(path: Path, *_: object) -> None:
        # As writing fails, which knows no name, or opening, which knows the temporary one.
        raise OSError(errno.ENOSPC, "No space left on device", *([] if write is atomic_write else [str(path)]))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "out", "new")
    assert caught.value.filename == str(tmp_path / "out")


# resolve_inside


@pytest.mark.parametrize(
    "name", ["file", "a/file", "a//file", "./file", "a/./file", "..file", "a..b/file", "mit Leer é"]
)
def test_plain_relative_name_is_resolved(tmp_path: Path, name: str) -> None:
    assert resolve_inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "//host/share",
        "..",
        "../file",
        "a/../../file",
        "a/..",
        "a\\file",
        "..\\file",
        "C:file",
        "C:/file",
    ],
)
def test_name_that_could_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"Refused the file name .*expected a plain relative path"):
        resolve_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["link", "link/file"])
def test_symbolic_link_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=r"outside .* through a symbolic link"):
        resolve_inside(tmp_path / "root", name)


def test_symbolic_link_that_stays_inside_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert resolve_inside(tmp_path, "link").read_text() == "x"


def test_root_behind_a_symbolic_link_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    assert resolve_inside(tmp_path / "root", "file") == tmp_path / "root" / "file"


def test_symbolic_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BundleError):
        resolve_inside(tmp_path, "loop/file")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="Refused the file name"):
        resolve_inside(tmp_path, name)


HOSTILE_PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "/", "\\", "~", "link", "link/..", "file", "C:", "%2e%2e", "..;", "．．", "…"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOSTILE_PARTS, max_size=6), st.sampled_from(["/", "\\", ""]))
def test_hostile_name_stays_inside_or_is_refused(tmp_path: Path, parts: list[str], separator: str) -> None:
    root = tmp_path / "root"
    with contextlib.suppress(FileExistsError):
        root.mkdir()
        (root / "link").symlink_to("..")
    try:
        found = resolve_inside(root, separator.join(parts))
    except BundleError:
        return
    assert os.path.realpath(found) == str(root) or os.path.realpath(found).startswith(f"{root}{os.sep}")
