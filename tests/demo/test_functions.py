"""What stands behind the page, without a page."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import ImageData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewright.demo.about import card
from edgewright.demo.classify import stages, verdict
from edgewright.demo.command import read_users
from edgewright.demo.compare import (
    MOST_PICTURES,
    Row,
    agreement_table,
    compare_pictures,
    comparison_table,
    pictures_in_upload,
    rows_of,
)
from edgewright.demo.messages import human_sentence
from edgewright.demo.models import MAX_PIXELS, DemoModel, open_models
from edgewright.demo.picture_file import picture_file
from edgewright.export.exporter import Export
from edgewright.runtime.classifier import LabelScore, Prediction, Timings
from edgewright.runtime.errors import BackendError, ImageError, UsageError


@pytest.fixture(scope="module")
def model(digits_export: Export) -> Iterator[DemoModel]:
    found = DemoModel(digits_export.bundle.path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def golden(model: DemoModel) -> list[bytes]:
    return [model.bundle.read(vector.image) for vector in model.bundle.manifest.golden]


def png(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def prediction(label: str, score: float = 0.9, known: bool = True) -> Prediction:
    return Prediction(label, 0, score, known, (LabelScore(label, 0, score),), Timings(1.0, 2.0, 3.0, 0.5))


# Models


def test_every_artefact_that_runs_here_labels(model: DemoModel, golden: list[bytes]) -> None:
    assert {"model.fp32", "openvino.fp32", "model.int8.ort-x86", "openvino.int8"} <= set(model.artefacts)
    rows = rows_of(model, golden[0])
    assert [row.artefact for row in rows] == model.artefacts
    assert all(row.prediction is not None for row in rows)


def test_engine_that_refuses_is_a_row_and_asked_once(
    model: DemoModel, golden: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewright.demo import models as module

    asked = []

    def refused(*arguments: object, **named: object) -> object:
        asked.append(named["artefact"])
        raise BackendError("no instructions for it")

    fresh = DemoModel(model.bundle.path)
    try:
        monkeypatch.setattr(module, "load", refused)
        for _ in range(2):
            rows = rows_of(fresh, golden[0])
        assert [row.artefact for row in rows if row.prediction is not None] == [fresh.default]
        assert all(row.why == "does not run here" for row in rows if row.prediction is None)
        assert len(asked) == len(set(asked)) == len(fresh.artefacts) - 1
    finally:
        fresh.close()


def test_picture_that_is_too_large_is_refused_before_it_is_decoded(model: DemoModel) -> None:
    side = int(MAX_PIXELS**0.5) + 10
    with pytest.raises(ImageError, match="pixels"):
        model.label(png("1", (side, side)))


def test_component_takes_uploads_and_data_and_no_other_file(tmp_path: Path) -> None:
    component = picture_file()
    upload = Path(component.GRADIO_CACHE) / "edgewright-test.png"
    upload.parent.mkdir(parents=True, exist_ok=True)
    upload.write_bytes(png())
    try:
        assert component.preprocess(ImageData(path=str(upload))) == str(upload.resolve())
    finally:
        upload.unlink()
    data = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    assert component.preprocess(ImageData(url=data)) == png()
    (tmp_path / "other.png").write_bytes(png())
    outside = (
        "/etc/hostname",
        "/dev/zero",
        str(tmp_path / "other.png"),
        f"{component.GRADIO_CACHE}/../../etc/hostname",
        "",
    )
    for path in outside:
        with pytest.raises(gr.Error, match="Send the picture itself"):
            component.preprocess(ImageData(path=path))
    with pytest.raises(gr.Error, match="Send the picture itself"):
        component.preprocess(ImageData(url="data:image/png;base64,%%%"))


def test_two_bundles_of_one_name_are_refused(model: DemoModel) -> None:
    with pytest.raises(UsageError, match="Two bundles are called"):
        open_models([model.bundle.path, model.bundle.path])


# What is shown


def test_verdict_says_when_it_is_not_sure() -> None:
    assert "Not sure" not in verdict(prediction("cat"))
    assert "Not sure" in verdict(prediction("cat", known=False))


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_labels_are_escaped(hostile: str) -> None:
    shown = verdict(prediction(hostile)) + verdict(prediction(hostile, known=False))
    shown += comparison_table(
        [Row(hostile, hostile, hostile, prediction(hostile)), Row(hostile, "", "", None, hostile)]
    )
    assert "<script" not in shown
    assert "<img" not in shown


def test_stages_are_those_of_the_prediction() -> None:
    shown = stages(prediction("cat"))
    assert "6.5 ms from file to label" in shown
    assert all(f"{value:.2f} ms" in shown for value in (1.0, 2.0, 3.0, 0.5))


def test_artefact_that_disagrees_stands_out() -> None:
    rows = [Row("a", "fp32", "x", prediction("cat")), Row("b", "int8", "x", prediction("dog"))]
    shown = comparison_table(rows)
    assert shown.count("ew-differs") == shown.count("disagrees") == 1
    assert "ew-differs" not in comparison_table(rows[:1] * 2)


def test_card_tells_labels_accuracy_and_limits(model: DemoModel) -> None:
    shown = card(model)
    for text in (*model.bundle.manifest.labels, *model.artefacts, "Licence", "Limits", "right on validation"):
        assert text in shown
    assert "does not run here" in shown, "the artefact for ARM"


# Many pictures


def test_pictures_come_from_files_and_from_zips(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("folder/inner.jpg", b"bytes")
        archive.writestr("../../outside.png", b"bytes")
        archive.writestr("__MACOSX/._inner.jpg", b"bytes")
        archive.writestr("readme.md", b"text")
    found = list(pictures_in_upload([str(tmp_path / name) for name in ("a.png", "notes.txt", "b.zip")]))
    assert [name for name, _ in found] == ["a.png", "inner.jpg", "outside.png"]
    assert not (tmp_path.parent.parent / "outside.png").exists()


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.demo import compare

    monkeypatch.setattr(compare, "_LARGEST_PICTURE", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * 1_000_000)
    with pytest.raises(UsageError, match="unpacks to too much"):
        list(pictures_in_upload([str(tmp_path / "bomb.zip")]))


def test_too_many_pictures_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(MOST_PICTURES + 1):
            archive.writestr(f"{number}.png", b"x")
    with pytest.raises(UsageError, match=f"More than {MOST_PICTURES} pictures"):
        list(pictures_in_upload([str(tmp_path / "many.zip")]))


def test_upload_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UsageError, match="No pictures among the files"):
        list(pictures_in_upload([str(tmp_path / "notes.txt")]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_damaged_zip_is_one_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        archive.writestr("a.png", bytes(range(256)) * 4)
        archive.writestr("b.jpg", b"xyz" * 50)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UsageError):  # and nothing else
        assert len(list(pictures_in_upload([str(path)]))) <= 2


def test_agreement_counts_pictures_and_shows_what_differs(model: DemoModel, golden: list[bytes]) -> None:
    pictures = [*((f"{number}.png", data) for number, data in enumerate(golden)), ("bad.png", b"no picture")]
    *_, found = compare_pictures(model, iter(pictures))
    assert (found.pictures, found.unreadable) == (len(golden), ["bad.png"])
    for name in found.artefacts:
        assert found.same[name, name] == len(golden)
    assert found.same["model.fp32", "openvino.fp32"] == len(golden)
    shown = agreement_table(found)
    assert "100.0%" in shown
    assert "bad.png" in shown


@pytest.mark.parametrize("damage", [None, [], {"damage_per_class": []}, {"damage_per_class": {"a": {"0": {}}}}, "text"])
def test_card_does_without_a_report_it_cannot_read(
    model: DemoModel, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    bundle = model.bundle
    real = bundle.read

    def read(self: object, relative: str) -> bytes:
        return json.dumps(damage).encode() if relative == "report/report.json" else real(relative)

    monkeypatch.setattr(type(bundle), "read", read)
    assert "Limits" in card(model)


# Words


@pytest.mark.parametrize(
    "error",
    [
        ImageError("'/tmp/gradio/abc/evil.png' is no picture: found text."),
        UsageError("'/home/me/bundle' is not empty."),
        BackendError("/usr/lib/engine.so failed"),
        ZeroDivisionError("/home/me/secret.py: division by zero"),
        OSError(28, "No space left on device", "C:\\Users\\me\\x.png"),
    ],
)
def test_sentences_have_no_paths(error: Exception) -> None:
    said = human_sentence(error)
    assert "/" not in said.replace("and/or", "")
    assert "\\" not in said
    assert said.endswith(".")


def test_users_are_read_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:secret:with colon\n\nbob:other\n")
    file.chmod(0o600)
    assert read_users(file) == [("ann", "secret:with colon"), ("bob", "other")]


@pytest.mark.parametrize("content", ["", "ann", "ann:", ":secret", "\n\n"])
def test_lines_that_are_no_users_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "users").write_text(content)
    with pytest.raises(UsageError, match="USER:PASSWORD"):
        read_users(tmp_path / "users")


def test_sixteen_bit_pictures_are_decoded_as_on_the_device(model: DemoModel, tmp_path: Path) -> None:
    """Gradio's own conversion turns them white; the page hands over the file."""
    path = tmp_path / "deep.png"
    values = (np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) * 13 % 65_536).astype(np.uint16)
    Image.fromarray(values).save(path)
    assert model.label(str(path)).top_k == model.classifier()(path).top_k
