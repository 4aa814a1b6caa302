"""Bundles open when every byte is what the manifest says, and are written all at once or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.runtime.bundle import MANIFEST_FILE, open_bundle, record_files, writing_bundle
from edgewright.runtime.errors import BundleError

LISTED = (
    "artefacts/model.fp32.onnx",
    "artefacts/openvino.fp32/model.bin",
    "artefacts/openvino.fp32/model.xml",
    "golden/000.png",
    "golden/000.rgb",
    "golden/001.jpeg",
    "golden/001.rgb",
    "golden/002.png",
    "golden/002.rgb",
    "labels.txt",
)
every_file = pytest.mark.parametrize("file", LISTED)
every_file_and_manifest = pytest.mark.parametrize("file", [*LISTED, MANIFEST_FILE])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(bundle: Path, names: str) -> None:
    with pytest.raises(BundleError, match=re.escape(names)):
        open_bundle(bundle)


def test_untouched_bundle_opens(tiny_bundle: Path) -> None:
    assert open_bundle(str(tiny_bundle)).manifest.name == "colours-0"


def test_list_of_files_in_these_tests_is_complete(tiny_bundle: Path) -> None:
    assert tuple(sorted(open_bundle(tiny_bundle).manifest.files)) == LISTED


@every_file
@pytest.mark.parametrize("place", [0, -1])
def test_flipped_bit_is_found(tiny_copy: Path, file: str, place: int) -> None:
    data = bytearray((tiny_copy / file).read_bytes())
    data[place] ^= 1
    (tiny_copy / file).write_bytes(data)
    refusal(tiny_copy, f"'{file}' in '{tiny_copy}' was altered")


@every_file_and_manifest
def test_truncated_file_is_found(tiny_copy: Path, file: str) -> None:
    os.truncate(tiny_copy / file, (tiny_copy / file).stat().st_size - 1)
    refusal(tiny_copy, file)


def test_size_that_is_wrong_is_named_beside_the_right_one(tiny_copy: Path) -> None:
    os.truncate(tiny_copy / "golden/000.rgb", 700)
    refusal(tiny_copy, "has 700 bytes, expected 768")


@every_file_and_manifest
def test_emptied_file_is_found(tiny_copy: Path, file: str) -> None:
    os.truncate(tiny_copy / file, 0)
    refusal(tiny_copy, file)


@every_file_and_manifest
def test_deleted_file_is_found(tiny_copy: Path, file: str) -> None:
    (tiny_copy / file).unlink()
    refusal(tiny_copy, file)


@every_file
def test_file_that_is_a_link_to_the_outside_is_refused(tiny_copy: Path, tmp_path: Path, file: str) -> None:
    (tiny_copy / file).rename(tmp_path / "outside")
    (tiny_copy / file).symlink_to(tmp_path / "outside")
    refusal(tiny_copy, f"Refused '{file}': it leads outside")


def test_manifest_that_is_a_link_to_the_outside_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / MANIFEST_FILE).rename(tmp_path / "outside")
    (tiny_copy / MANIFEST_FILE).symlink_to(tmp_path / "outside")
    refusal(tiny_copy, f"Refused '{MANIFEST_FILE}': it leads outside")


@every_file
def test_file_that_is_a_folder_is_refused(tiny_copy: Path, file: str) -> None:
    (tiny_copy / file).unlink()
    (tiny_copy / file).mkdir()
    refusal(tiny_copy, file)


def test_file_that_is_a_link_to_itself_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "labels.txt").unlink()
    (tiny_copy / "labels.txt").symlink_to("labels.txt")
    refusal(tiny_copy, "labels.txt")


@pytest.mark.parametrize("stranger", ["notes.txt", "artefacts/model.int8.onnx", ".hidden", "golden/deep/er.png"])
def test_file_that_is_not_listed_is_refused(tiny_copy: Path, stranger: str) -> None:
    (tiny_copy / stranger).parent.mkdir(exist_ok=True)
    (tiny_copy / stranger).write_text("hello")
    refusal(tiny_copy, f"holds '{stranger}', which its manifest does not list")


def test_dangling_link_that_is_not_listed_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "link").symlink_to("/nowhere/at/all")
    refusal(tiny_copy, "holds 'link'")


def test_link_to_a_folder_outside_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tiny_copy / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    refusal(tiny_copy, "holds 'link'")


@pytest.mark.parametrize("file", [file for file in LISTED if file != "labels.txt"])
def test_file_from_another_bundle_is_refused(tiny_copy: Path, other_bundle: Path, file: str) -> None:
    shutil.copy(other_bundle / file, tiny_copy / file)
    refusal(tiny_copy, file)


def test_files_of_one_bundle_that_changed_places_are_found(tiny_copy: Path) -> None:
    first, second, spare = tiny_copy / "golden/000.rgb", tiny_copy / "golden/001.rgb", tiny_copy / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    refusal(tiny_copy, "golden/000.rgb")


def test_manifest_of_another_bundle_is_refused(tiny_copy: Path, other_bundle: Path) -> None:
    shutil.copy(other_bundle / MANIFEST_FILE, tiny_copy / MANIFEST_FILE)
    refusal(tiny_copy, "artefacts/")


@pytest.mark.parametrize("name", ["../x", "golden/../../x", "/etc/passwd", "C:/x", "..\\x", ""])
def test_manifest_that_lists_a_path_outside_is_refused(tiny_copy: Path, reseal: Callable[..., None], name: str) -> None:
    (tiny_copy.parent / "x").write_bytes(b"x")
    record = {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "size_bytes": 1}
    reseal(tiny_copy, lambda document: document["files"].update({name: record}))
    refusal(tiny_copy, f"Refused the file name {name!r}")


def test_manifest_that_lists_a_name_with_nul_is_refused(tiny_copy: Path, reseal: Callable[..., None]) -> None:
    record = {"sha256": "0" * 64, "size_bytes": 1}
    reseal(tiny_copy, lambda document: document["files"].update({"a\0b": record}))
    refusal(tiny_copy, "Refused the file name")


def test_labels_file_that_disagrees_with_the_manifest_is_refused(tiny_copy: Path, reseal: Callable[..., None]) -> None:
    (tiny_copy / "labels.txt").write_text("green\nred\nblue\ntrès noir\n", encoding="utf-8")
    reseal(tiny_copy)
    refusal(tiny_copy, "'labels.txt'")


@pytest.mark.parametrize(
    "text",
    ["red\r\ngreen\r\nblue\r\ntrès noir\r\n", "red\ngreen\nblue\ntrès noir", "red\ngreen\nblue\ntrès noir\n\n", ""],
    ids=["windows", "unfinished", "empty line", "empty"],
)
def test_labels_file_with_other_line_ends_is_refused(tiny_copy: Path, reseal: Callable[..., None], text: str) -> None:
    (tiny_copy / "labels.txt").write_bytes(text.encode())
    reseal(tiny_copy)
    refusal(tiny_copy, "'labels.txt'")


def test_bundle_without_a_labels_file_is_refused(tiny_copy: Path, reseal: Callable[..., None]) -> None:
    (tiny_copy / "labels.txt").unlink()
    reseal(tiny_copy)
    refusal(tiny_copy, "has no labels.txt")


@pytest.mark.parametrize("label", ["a\u2028b", "Icon\r", "a\x1cb"])
def test_label_that_the_manifest_allows_can_be_opened(tiny_copy: Path, reseal: Callable[..., None], label: str) -> None:
    (tiny_copy / "labels.txt").write_bytes(f"{label}\ngreen\nblue\ntrès noir\n".encode())
    reseal(tiny_copy, lambda document: document["labels"].__setitem__(0, label))
    assert open_bundle(tiny_copy).manifest.labels[0] == label


def test_half_written_bundle_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / MANIFEST_FILE).unlink()
    refusal(tiny_copy, f"found a folder without {MANIFEST_FILE}")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", "found no folder")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000], ids=["name", "path"])
def test_path_that_is_too_long_is_refused(tmp_path: Path, name: str) -> None:
    refusal(tmp_path / name, "No bundle at")


def test_file_in_place_of_a_folder_is_refused(tiny_bundle: Path) -> None:
    refusal(tiny_bundle / MANIFEST_FILE, "found a file")


def test_manifest_of_absurd_size_is_not_read(tiny_copy: Path) -> None:
    os.truncate(tiny_copy / MANIFEST_FILE, 17 * 1024 * 1024)
    refusal(tiny_copy, "is larger than")


def test_moved_bundle_opens(tiny_copy: Path) -> None:
    moved = tiny_copy.rename(tiny_copy.parent / "très loin")
    assert open_bundle(moved).read("labels.txt").startswith(b"red")


def test_bundle_behind_a_link_opens(tiny_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tiny_bundle, target_is_directory=True)
    assert open_bundle(link).manifest.name == "colours-0"


@every_file
def test_file_exchanged_after_opening_is_not_used(tiny_copy: Path, file: str) -> None:
    bundle = open_bundle(tiny_copy)
    data = (tiny_copy / file).read_bytes()
    (tiny_copy / file).write_bytes(data[::-1])
    with pytest.raises(BundleError, match=re.escape(file)):
        bundle.read(file)


def test_file_deleted_after_opening_is_missed(tiny_copy: Path) -> None:
    bundle = open_bundle(tiny_copy)
    (tiny_copy / "labels.txt").unlink()
    with pytest.raises(BundleError, match=r"'labels\.txt' is missing"):
        bundle.read("labels.txt")


@pytest.mark.parametrize("name", [MANIFEST_FILE, "../manifest.json", "./labels.txt", "nothing"])
def test_file_that_is_not_listed_cannot_be_read(tiny_bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match="is not listed in the manifest"):
        open_bundle(tiny_bundle).read(name)


def test_artefact_of_two_files_comes_with_its_weights(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    folder = tiny_bundle / "artefacts" / "openvino.fp32"
    expected = ((folder / "model.xml").read_bytes(), (folder / "model.bin").read_bytes())
    assert bundle.artefact_bytes(bundle.manifest.artefact("openvino.fp32")) == expected


def test_record_leaves_the_manifest_out(tiny_bundle: Path) -> None:
    assert tuple(sorted(record_files(tiny_bundle))) == LISTED


def rewrite(path: Path, source: Path, ending: Callable[[Path], object] = lambda folder: None) -> None:
    """Write what `source` holds as a bundle at `path`; `ending` is what happens last."""
    with writing_bundle(path) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        ending(folder)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_block_that_raises_leaves_the_older_bundle(
    tiny_copy: Path, other_bundle: Path, error: type[BaseException]
) -> None:
    def stop(folder: Path) -> None:
        raise error

    before = contents(tiny_copy)
    with pytest.raises(error):
        rewrite(tiny_copy, other_bundle, stop)
    assert contents(tiny_copy) == before


def test_new_bundle_that_does_not_open_leaves_the_older_one(tiny_copy: Path, other_bundle: Path) -> None:
    before = contents(tiny_copy)
    with pytest.raises(BundleError, match="golden/000"):
        rewrite(tiny_copy, other_bundle, lambda folder: (folder / "golden" / "000.png").unlink())
    assert contents(tiny_copy) == before


def test_new_bundle_without_a_manifest_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError), writing_bundle(tmp_path / "bundle") as folder:
        (folder / "labels.txt").write_text("a\nb\n")
    assert list(tmp_path.iterdir()) == []


def test_new_bundle_takes_the_place_of_the_older_one(tiny_copy: Path, other_bundle: Path) -> None:
    rewrite(tiny_copy, other_bundle)
    assert contents(tiny_copy) == contents(other_bundle)


def test_nothing_is_left_beside_a_new_bundle(tiny_copy: Path, other_bundle: Path) -> None:
    rewrite(tiny_copy, other_bundle)
    assert [path.name for path in tiny_copy.parent.iterdir()] == [tiny_copy.name]


def test_bundle_may_go_into_an_empty_folder(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "bundle").mkdir()
    rewrite(tmp_path / "bundle", tiny_bundle)
    assert open_bundle(tmp_path / "bundle").manifest.name == "colours-0"


def test_older_bundle_that_is_damaged_may_be_replaced(tiny_copy: Path, other_bundle: Path) -> None:
    os.truncate(tiny_copy / "labels.txt", 0)
    rewrite(tiny_copy, other_bundle)
    assert open_bundle(tiny_copy).manifest.name == "colours-1"


def test_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle; it is not overwritten"), writing_bundle(tmp_path):
        pytest.fail("the block must not run")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not overwritten"), writing_bundle(tmp_path / "thesis.tex"):
        pytest.fail("the block must not run")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    "text",
    ['{"name": "a web app", "start_url": "/"}', '["schema_version", "labels", "artefacts"]', "no JSON", "[" * 100_000],
    ids=["web app", "list", "text", "deep"],
)
def test_folder_with_a_manifest_of_something_else_is_not_overwritten(
    tmp_path: Path, tiny_bundle: Path, text: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("years of work")
    (site / MANIFEST_FILE).write_text(text)
    with pytest.raises(BundleError, match="not overwritten"):
        rewrite(site, tiny_bundle)
    assert (site / "index.html").read_text() == "years of work"


def test_bundle_of_a_newer_version_may_be_replaced(
    tiny_copy: Path, other_bundle: Path, reseal: Callable[..., None]
) -> None:
    reseal(tiny_copy, lambda document: document.update(schema_version=99))
    rewrite(tiny_copy, other_bundle)
    assert open_bundle(tiny_copy).manifest.name == "colours-1"
