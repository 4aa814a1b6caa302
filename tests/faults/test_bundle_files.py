"""Each file of a bundle of digits, damaged in each way: the bundle is refused with the file's name, and nothing runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.export.exporter import Export
from edgewright.runtime.bundle import MANIFEST_FILE, open_bundle
from edgewright.runtime.errors import BundleError

from .conftest import OLDER, Start, refusal

Damage = Callable[[Path, Path], None]


def flip_bit(file: Path, spare: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def truncate(file: Path, spare: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def swap(file: Path, spare: Path) -> None:
    """The file of another bundle that has the same part; here just other bytes, as many."""
    other = (
        OLDER
        / "v1-colours"
        / {".onnx": "artefacts/model.fp32.onnx", ".xml": "artefacts/openvino.fp32/model.xml"}.get(
            file.suffix, "artefacts/openvino.fp32/model.bin"
        )
    )
    shutil.copyfile(OLDER / "v1-colours" / MANIFEST_FILE if file.name == MANIFEST_FILE else other, file)


def link_outside(file: Path, spare: Path) -> None:
    shutil.copyfile(file, spare)
    file.unlink()
    file.symlink_to(spare)


def remove(file: Path, spare: Path) -> None:
    file.unlink()


def make_folder(file: Path, spare: Path) -> None:
    file.unlink()
    file.mkdir()


def make_pipe(file: Path, spare: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Damage] = {
    "flipped bit": flip_bit,
    "truncated": truncate,
    "another bundle's file": swap,
    "link to the outside": link_outside,
    "file absent": remove,
    "folder in its place": make_folder,
    "pipe in its place": make_pipe,
}


@pytest.fixture(scope="module")
def digits(digits_export: Export, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy that each test leaves as it was."""
    path = Path(shutil.copytree(digits_export.bundle.path, tmp_path_factory.mktemp("damaged") / "digits"))
    yield path
    assert open_bundle(path).manifest == digits_export.bundle.manifest


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_damaged_bundle_is_named(digits: Path, tmp_path: Path, faults: Any, damage: str) -> None:
    files = [MANIFEST_FILE, *open_bundle(digits).manifest.files]
    kinds = {file.partition("/")[0] for file in files}
    assert {"artefacts", "golden", "report", "explain", "labels.txt", MANIFEST_FILE} <= kinds
    kept = tmp_path / "kept"
    for file in files:
        faults.tried(damage, file.partition("/")[0])
        shutil.copyfile(digits / file, kept)
        DAMAGES[damage](digits / file, tmp_path / "outside")
        try:
            # A manifest may say something else than the truth about any other file.
            names = None if file == MANIFEST_FILE else re.escape(file)
            with faults.whole(), pytest.raises(BundleError, match=names):
                open_bundle(digits)
        finally:
            if (digits / file).is_dir():
                (digits / file).rmdir()
            (digits / file).unlink(missing_ok=True)
            shutil.copyfile(kept, digits / file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_empty_file_that_became_a_pipe_is_not_waited_for(small_bundle: Path, faults: Any) -> None:
    import json

    from edgewright.runtime.bundle import record_files

    (small_bundle / "report").mkdir()
    (small_bundle / "report" / "empty").touch()
    document = json.loads((small_bundle / MANIFEST_FILE).read_bytes())
    document["files"] = {name: record.model_dump() for name, record in record_files(small_bundle).items()}
    (small_bundle / MANIFEST_FILE).write_text(json.dumps(document))
    open_bundle(small_bundle)
    faults.tried("pipe in its place", "report")
    make_pipe(small_bundle / "report" / "empty", small_bundle)
    with pytest.raises(BundleError, match=re.escape("'report/empty' in") + ".*is no plain file"):
        open_bundle(small_bundle)


@pytest.mark.parametrize("command", ["verify", "predict", "bench", "tune", "compile", "val", "demo", "serve"])
def test_every_command_refuses_a_damaged_bundle_with_one_line(
    small_bundle: Path, tmp_path: Path, run: Start, faults: Any, command: str
) -> None:
    more: dict[str, list[str | Path]] = {
        "predict": [small_bundle / "golden" / "000.png"],
        "compile": ["--backend", "openvino"],
        "val": [small_bundle / "golden"],
    }
    flip_bit(small_bundle / "artefacts" / "model.fp32.onnx", tmp_path)
    faults.tried("flipped bit", command)
    line = refusal(run(command, small_bundle, *more.get(command, [])).done(), "was altered")
    assert "'artefacts/model.fp32.onnx'" in line
