"""Accuracy on labelled pictures: right labels, right counts, nothing left out in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import DataError
from edgewright.runtime.validate import ArtefactAccuracy, Validation, labelled_pictures, validate

LABELS = ("red", "green", "blue", "très noir")
Paint = Callable[..., Image.Image]


@pytest.fixture
def album(tmp_path: Path, paint: Paint) -> Callable[..., Path]:
    """`album("test/red", "blue", 3)` puts three blue pictures into test/red and returns the dataset's folder."""

    def add(folder: str, colour: str, count: int) -> Path:
        target = tmp_path / "data" / folder
        target.mkdir(parents=True, exist_ok=True)
        have = len(list(target.iterdir()))
        for number in range(have, have + count):
            paint(colour, number, (20, 18)).save(target / f"{number:03d}.png")
        return tmp_path / "data"

    return add


def run(bundle: Bundle, data: Path, split: str | None = None, *, artefact: str = "model.fp32") -> ArtefactAccuracy:
    return evaluate(bundle, data, split, artefact).artefacts[0]


def evaluate(bundle: Bundle, data: Path, split: str | None = None, artefact: str = "model.fp32") -> Validation:
    pictures = labelled_pictures(data, bundle.manifest.labels, split)
    return validate(bundle, [bundle.manifest.artefact(artefact)], pictures)


@pytest.mark.parametrize("artefact", ["openvino.fp32", "model.fp32"])
def test_right_answers_are_counted(tiny_opened: Bundle, album: Callable[..., Path], artefact: str) -> None:
    for label in LABELS:
        data = album(label, label, 3)
    found = run(tiny_opened, data, artefact=artefact)
    assert (found.name, found.images, found.top1, found.top5) == (artefact, 12, 1.0, 1.0)


def test_wrong_answers_are_counted(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    album("red", "red", 3)
    data = album("blue", "green", 1)
    assert run(tiny_opened, data).top1 == 0.75


@pytest.mark.parametrize("images", [1, 15, 16, 17, 33])
def test_last_batch_may_be_any_size(tiny_opened: Bundle, album: Callable[..., Path], images: int) -> None:
    found = run(tiny_opened, album("blue", "blue", images))
    assert (found.images, found.top1) == (images, 1.0)


def test_artefacts_see_the_same_pictures(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    pictures = labelled_pictures(album("red", "red", 5), LABELS, None)
    found = validate(tiny_opened, tiny_opened.manifest.artefacts, pictures)
    assert [(each.name, each.images) for each in found.artefacts] == [("openvino.fp32", 5), ("model.fp32", 5)]


def test_engine_takes_time(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    assert run(tiny_opened, album("red", "red", 1)).seconds > 0


def test_unreadable_pictures_are_counted_apart(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    data = album("red", "red", 3)
    (data / "red" / "bad.png").write_bytes(b"no picture")
    (data / "red" / "empty.jpg").touch()
    found = evaluate(tiny_opened, data)
    assert [Path(file).name for file, _ in found.unreadable] == ["bad.png", "empty.jpg"]
    assert found.artefacts[0].images == 3


def test_unreadable_picture_comes_with_its_reason(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    data = album("red", "red", 1)
    (data / "red" / "empty.jpg").touch()
    assert "is empty" in evaluate(tiny_opened, data).unreadable[0][1]


def test_whole_batch_may_be_unreadable(tiny_opened: Bundle, album: Callable[..., Path]) -> None:
    data = album("red", "red", 2)
    for number in range(40):
        (data / "red" / f"a{number}.png").write_bytes(b"no picture")
    found = evaluate(tiny_opened, data)
    assert (found.artefacts[0].images, len(found.unreadable)) == (2, 40)


def test_nothing_readable_is_an_error(tiny_opened: Bundle, tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of the 1 pictures can be read; the first: .*bad\.png"):
        evaluate(tiny_opened, tmp_path)


def test_index_comes_from_the_name_and_not_from_the_order_of_folders(album: Callable[..., Path]) -> None:
    for label in LABELS:
        data = album(label, label, 1)
    found = {path.parent.name: index for path, index in labelled_pictures(data, LABELS, None)}
    assert found == {"red": 0, "green": 1, "blue": 2, "très noir": 3}


def test_classes_without_pictures_do_not_shift_the_others(album: Callable[..., Path]) -> None:
    assert [index for _, index in labelled_pictures(album("blue", "blue", 2), LABELS, None)] == [2, 2]


def test_unknown_class_is_refused(album: Callable[..., Path]) -> None:
    album("red", "red", 1)
    data = album("yellow", "green", 1)
    with pytest.raises(DataError, match="has the class 'yellow', which is not among: red, green, blue, très noir"):
        labelled_pictures(data, LABELS, None)


def test_pictures_below_a_class_count(album: Callable[..., Path]) -> None:
    assert len(labelled_pictures(album("red/2024/may", "red", 3), LABELS, None)) == 3


@pytest.mark.parametrize(
    ("folders", "expected"),
    [(("train", "val", "test"), "test"), (("train", "valid"), "valid"), (("train", "validation"), "validation")],
)
def test_held_back_pictures_are_preferred(album: Callable[..., Path], folders: tuple[str, ...], expected: str) -> None:
    for folder in folders:
        data = album(f"{folder}/red", "red", 1)
    assert [path.parent.parent.name for path, _ in labelled_pictures(data, LABELS, None)] == [expected]


def test_split_can_be_chosen(album: Callable[..., Path]) -> None:
    album("test/red", "red", 1)
    data = album("train/red", "red", 2)
    assert len(labelled_pictures(data, LABELS, "train")) == 2


def test_missing_split_is_refused(album: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="has no val split"):
        labelled_pictures(album("test/red", "red", 1), LABELS, "val")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No folder at"):
        labelled_pictures(tmp_path / "nowhere", LABELS, None)


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="No pictures in"):
        labelled_pictures(tmp_path, LABELS, None)
