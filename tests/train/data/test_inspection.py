"""`data check`: every problem of a dataset is named, none stops it, and sound data have none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgewright.runtime.errors import DataError
from edgewright.train.data.commands import data_app
from edgewright.train.data.inspection import inspect_data

Document = dict[str, Any]
Make = Callable[..., Path]


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((width, height))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make({"train/cat": 12})` writes 12 JPEGs that all differ; counted through, so that no two sets are the same."""

    def write(counts: dict[str, int]) -> Path:
        seed = 0
        for folder, count in counts.items():
            (tmp_path / "data" / folder).mkdir(parents=True)
            for number in range(count):
                picture(seed).save(tmp_path / "data" / folder / f"{number:02d}.jpg", quality=95)
                seed += 1
        return tmp_path / "data"

    return write


SOUND = {"train/cat": 10, "train/dog": 12, "val/cat": 2, "val/dog": 2, "test/cat": 2, "test/dog": 2}


@pytest.fixture
def sound(make: Make) -> Path:
    return make(SOUND)


def check(data: Path | str) -> Document:
    document = inspect_data(str(data)).document()
    assert json.loads(json.dumps(document)) == document
    return document


def warned(document: Document, text: str) -> bool:
    return any(text in warning for warning in document["warnings"])


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


# Counts


def test_sound_data_have_nothing_to_complain_about(sound: Path) -> None:
    document = check(sound)
    findings = {key: document[key] for key in ("corrupt", "duplicates", "leaks", "unusual", "skipped", "warnings")}
    assert findings == {key: [] for key in findings}


def test_pictures_are_counted_by_class_and_split(sound: Path) -> None:
    document = check(sound)
    assert document["classes"] == {"cat": 14, "dog": 16}
    assert document["splits"] == {
        "train": {"cat": 10, "dog": 12},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 2, "dog": 2},
    }


def test_data_without_splits_have_one(make: Make) -> None:
    assert check(make({"cat": 10, "dog": 11}))["splits"] == {"all": {"cat": 10, "dog": 11}}


def test_table_is_checked_as_a_folder_is(make: Make) -> None:
    root = make({"cat": 10, "dog": 10})
    lines = [f"{name}/{number:02d}.jpg,{name}" for name in ("cat", "dog") for number in range(10)]
    (root / "list.csv").write_text(
        "\n".join(["path,label", *lines, "cat/00.jpg,dog", "cat/gone.jpg,cat", "dog/00.jpg,"])
    )
    document = check(root / "list.csv")
    assert document["classes"] == {"cat": 11, "dog": 10}
    assert [item["file"] for item in document["corrupt"]] == ["cat/gone.jpg"]
    assert warned(document, "line 22: 'cat/00.jpg' has the label 'dog', and 'cat' in line 2")
    assert warned(document, "line 24: the label is empty")


def test_digits_are_digits() -> None:
    document = check("digits")
    assert document["images"] == 1797
    assert document["warnings"] == []


# Files


def test_damaged_picture_is_corrupt(sound: Path) -> None:
    file = sound / "train" / "cat" / "03.jpg"
    file.write_bytes(file.read_bytes()[:200])
    (sound / "val" / "dog" / "00.jpg").write_text("no picture at all")
    document = check(sound)
    assert [item["file"] for item in document["corrupt"]] == ["train/cat/03.jpg", "val/dog/00.jpg"]
    assert "damaged" in document["corrupt"][0]["why"]
    assert "not a picture" in document["corrupt"][1]["why"]


def test_file_that_is_no_picture_by_its_name_is_skipped(sound: Path) -> None:
    (sound / "train" / "cat" / "notes.txt").write_text("x")
    copy(sound / "val" / "cat" / "00.jpg", sound / "train" / "lost.jpg")
    document = check(sound)
    assert [item["file"] for item in document["skipped"]] == ["train/lost.jpg", "train/cat/notes.txt"]
    assert warned(document, "no class")
    assert warned(document, "not a picture by its name")


# Copies


def test_copy_in_a_split_is_an_exact_duplicate(sound: Path) -> None:
    copy(sound / "train" / "cat" / "00.jpg", sound / "train" / "cat" / "copy.jpg")
    document = check(sound)
    assert document["duplicates"] == [
        {
            "files": ["train/cat/00.jpg", "train/cat/copy.jpg"],
            "kind": "exact",
            "split": "train",
            "labels": ["cat", "cat"],
        }
    ]
    assert document["leaks"] == []
    assert warned(document, "duplicates: 1 picture ")


def test_copy_across_splits_is_a_leak(sound: Path) -> None:
    copy(sound / "train" / "dog" / "00.jpg", sound / "test" / "dog" / "copy.jpg")
    document = check(sound)
    assert document["leaks"] == [
        {
            "files": ["train/dog/00.jpg", "test/dog/copy.jpg"],
            "kind": "exact",
            "splits": ["train", "test"],
            "labels": ["dog", "dog"],
        }
    ]
    assert document["duplicates"] == []
    assert warned(document, "leaks: 1 picture ")


def test_smaller_recompressed_copy_is_a_near_leak(sound: Path) -> None:
    with Image.open(sound / "train" / "dog" / "05.jpg") as image:
        image.resize((48, 36)).save(sound / "val" / "dog" / "small.jpg", quality=60)
    found = check(sound)["leaks"]
    assert [(one["files"], one["kind"]) for one in found] == [(["train/dog/05.jpg", "val/dog/small.jpg"], "near")]


def test_near_copy_brings_all_equal_ones(sound: Path) -> None:
    copy(sound / "train" / "cat" / "00.jpg", sound / "train" / "cat" / "copy.jpg")
    with Image.open(sound / "train" / "cat" / "00.jpg") as image:
        image.resize((96, 72)).save(sound / "test" / "cat" / "large.png")
    document = check(sound)
    assert [(one["files"], one["kind"]) for one in document["leaks"]] == [
        (["train/cat/00.jpg", "train/cat/copy.jpg", "test/cat/large.png"], "near")
    ]
    assert document["duplicates"][0]["kind"] == "exact"


def test_copy_of_another_class_contradicts(sound: Path) -> None:
    copy(sound / "train" / "cat" / "00.jpg", sound / "train" / "dog" / "copy.jpg")
    assert warned(
        check(sound), "the same picture has different labels, once; for example train/cat/00.jpg, train/dog/copy.jpg"
    )


def test_tiny_pictures_are_copies_only_if_equal(make: Make) -> None:
    root = make({"cat": 10, "dog": 10})
    for number, file in enumerate(sorted(root.rglob("*.jpg"))):
        picture(0, 8, 8).point(lambda value, plus=number: value + plus).save(file)
    copy(root / "cat" / "00.jpg", root / "cat" / "copy.jpg")
    document = check(root)
    assert [one["files"] for one in document["duplicates"]] == [["cat/00.jpg", "cat/copy.jpg"]]


# Oddities


def test_unusual_pictures_are_named(sound: Path) -> None:
    cats = sound / "train" / "cat"
    picture(100).convert("CMYK").save(cats / "cmyk.jpg")
    picture(101).convert("L").save(cats / "grey.png")
    picture(102, 20, 30).save(cats / "tiny.png")
    picture(103, 200, 40).save(cats / "long.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(104).save(cats / "turned.jpg", exif=exif)
    document = check(sound)
    assert {(item["file"], item["what"]) for item in document["unusual"]} == {
        ("train/cat/cmyk.jpg", "CMYK colours"),
        ("train/cat/grey.png", "grey among pictures in colour"),
        ("train/cat/tiny.png", "smaller than 32 pixels"),
        ("train/cat/long.png", "more than 4 times as long as wide"),
        ("train/cat/turned.jpg", "turned by its EXIF orientation"),
    }
    assert warned(document, "1 picture CMYK colours: train/cat/cmyk.jpg")


def test_what_all_pictures_are_is_not_unusual(make: Make) -> None:
    root = make({"cat": 10, "dog": 10})
    for number, file in enumerate(sorted(root.rglob("*.jpg"))):
        picture(number, 24, 24).convert("L").save(file)
    assert check(root)["unusual"] == []


# Classes


def test_imbalance_is_measured(make: Make) -> None:
    assert warned(check(make({"cat": 60, "dog": 10})), "class imbalance 6.0 : 1: 60 of 'cat', 10 of 'dog'")


def test_small_class_is_named(make: Make) -> None:
    assert warned(check(make({"cat": 10, "dog": 4})), "too few pictures to learn from, fewer than 10: 'dog' (4)")


@pytest.mark.parametrize("other", ["Cat", " cat", "c at", "cat\N{NO-BREAK SPACE}", "ｃａｔ"])
def test_names_that_hardly_differ_are_named(make: Make, other: str) -> None:
    assert warned(
        check(make({"cat": 10, other: 10, "dog": 10})), f"Unicode form: {', '.join(map(ascii, sorted(['cat', other])))}"
    )


def test_class_missing_in_a_split_is_named(make: Make) -> None:
    document = check(make({"train/cat": 10, "train/dog": 10, "test/cat": 2}))
    assert warned(document, "no picture in the test split, so nothing is measured for: 'dog'")


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"cat": 10, "dog": 0}, "Class 'dog' is empty"),
        ({"cat": 10}, r"has one class ('cat')"),
        ({"cat": 10, "dog": 2}, "Class 'dog' has only 1 picture left to split"),
        ({"val/cat": 10, "val/dog": 10}, "but no 'train/'"),
        ({"train/cat": 10, "train/dog": 10, "val/emu": 3}, "has the class 'emu', which is not among: cat, dog"),
        ({"train/cat": 10, "train/dog": 10, "val/cat": 3, "valid/cat": 3}, "has both 'val/' and 'valid/'"),
    ],
)
def test_what_training_refuses_is_reported_and_the_rest_checked(
    make: Make, counts: dict[str, int], problem: str
) -> None:
    document = check(make(counts))
    assert any(warning.startswith("training refuses this: ") and problem in warning for warning in document["warnings"])
    assert document["images"] == sum(counts.values())


def test_no_such_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No folder at"):
        inspect_data(str(tmp_path / "nowhere"))


def test_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class folders"):
        inspect_data(str(tmp_path))


# Command


def test_command_prints_one_document(sound: Path) -> None:
    result = CliRunner().invoke(data_app, ["check", str(sound), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == check(sound)


def test_command_reports_problems_without_failing(sound: Path) -> None:
    copy(sound / "train" / "cat" / "00.jpg", sound / "test" / "dog" / "copy.jpg")
    (sound / "train" / "cat" / "01.jpg").write_bytes(b"x")
    result = CliRunner().invoke(data_app, ["check", str(sound)])
    assert result.exit_code == 0
    assert result.stdout == ""
    for text in ("train/cat/01.jpg", "test/dog/copy.jpg", "leaks: 1 picture", f"next: edgewright train {sound}"):
        assert text in result.stderr


def test_command_needs_no_training_library(sound: Path) -> None:
    code = (
        "import sys; from edgewright.train.data.commands import data_app; data_app(standalone_mode=False); "
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'openvino'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "check", str(sound)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"


def test_help_of_the_command_needs_no_picture_library() -> None:
    code = "import sys; import edgewright.train.data.commands; print(sorted({'numpy', 'PIL'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"
