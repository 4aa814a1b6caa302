"""The running page, asked by Gradio's own client, and the folder that becomes a Space."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from edgewright.demo.space import export_space
from edgewright.export.exporter import Export
from edgewright.runtime.errors import BundleError, UsageError
from edgewright.runtime.loading import load

if TYPE_CHECKING:
    from tests.demo.conftest import Page


@pytest.fixture(scope="module")
def client(page: Page) -> Client:
    return Client(page.url, verbose=False)


@pytest.fixture(scope="module")
def golden(digits_export: Export) -> list[Path]:
    bundle = digits_export.bundle
    return [bundle.path / vector.image for vector in bundle.manifest.golden]


def test_label_is_that_of_the_runtime(client: Client, digits_export: Export, golden: list[Path]) -> None:
    bundle = digits_export.bundle
    with load(bundle.path, artefact="model.fp32") as classifier:
        for picture in golden:
            answer, scores, _, times = client.predict(
                handle_file(picture), bundle.manifest.name, "model.fp32", api_name="/classify"
            )
            expected = classifier(picture)
            assert scores["label"] == expected.label
            assert scores["confidences"][0]["confidence"] == pytest.approx(expected.score, abs=1e-5)
            assert expected.label in answer
            assert "from file to label" in times


def test_map_is_shown_where_the_bundle_has_one(client: Client, digits_export: Export, golden: list[Path]) -> None:
    bundle = digits_export.bundle
    shown = client.predict(handle_file(golden[0]), bundle.manifest.name, "model.fp32", api_name="/classify")[2]
    assert (shown is not None) == (bundle.manifest.explain is not None)


def test_every_artefact_is_compared(client: Client, digits_export: Export, golden: list[Path]) -> None:
    table = client.predict(handle_file(golden[0]), digits_export.bundle.manifest.name, api_name="/compare")
    for name in ("model.fp32", "model.int8.ort-x86", "openvino.fp32", "openvino.int8"):
        assert name in table


def test_zip_gives_the_agreement(client: Client, digits_export: Export, golden: list[Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for number, picture in enumerate(golden):
            archive.write(picture, f"{number}{picture.suffix}")
    table, _ = client.predict(
        [handle_file(tmp_path / "pictures.zip")], digits_export.bundle.manifest.name, api_name="/agreement"
    )
    assert f"{len(golden)} pictures" in table


def test_benchmark_is_measured_here(client: Client, digits_export: Export) -> None:
    state, result = client.predict(digits_export.bundle.manifest.name, 2, api_name="/benchmark")
    assert "done" in state
    assert "pictures/s" in result
    assert "<svg" in result


@pytest.mark.parametrize("content", [b"no picture at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 100])
def test_bad_file_is_a_sentence_without_a_path(
    client: Client, digits_export: Export, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    name, bad = digits_export.bundle.manifest.name, handle_file(tmp_path / "bad.png")
    answers = [
        client.predict(bad, name, "model.fp32", api_name="/classify")[0],
        client.predict(bad, name, api_name="/compare"),
    ]
    for answer in answers:
        assert "This is no picture that can be used here" in answer
        assert "/" not in answer.replace("</p>", "")


def test_bad_zip_is_a_sentence_without_a_path(client: Client, digits_export: Export, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    with pytest.raises(AppError, match="The ZIP is damaged") as refused:
        client.predict([handle_file(tmp_path / "bad.zip")], digits_export.bundle.manifest.name, api_name="/agreement")
    assert "/" not in str(refused.value)


def test_files_of_the_machine_are_not_served(page: Page, digits_export: Export) -> None:
    for path in ("/etc/passwd", digits_export.bundle.path / "manifest.json", Path(__file__)):
        assert httpx.get(f"{page.url}gradio_api/file={path}").status_code in (403, 404)


def test_page_tells_nobody(page: Page) -> None:
    text = httpx.get(page.url).text
    for stranger in ("google-analytics", "fonts.googleapis", "fonts.gstatic"):
        assert stranger not in text + httpx.get(f"{page.url}theme.css").text
    assert '"analytics_enabled":false' in text.replace(" ", "")


def test_password_is_asked_for(digits_export: Export, tmp_path: Path, start: Any) -> None:
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    users.chmod(0o600)
    page = start(digits_export.bundle.path, "--auth", users)
    assert httpx.get(f"{page.url}config").status_code == 401
    answer = httpx.post(f"{page.url}login", data={"username": "ann", "password": "wrong"})
    assert answer.status_code == 400
    answer = httpx.post(f"{page.url}login", data={"username": "ann", "password": "secret"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share"], "--share lets anybody in"),
        (["--auth", "nowhere"], "Cannot read 'nowhere'"),
    ],
)
def test_wrong_options_are_one_message(digits_export: Export, options: list[str], said: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "edgewright", "demo", str(digits_export.bundle.path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# The Space


@pytest.mark.slow
def test_space_runs_from_its_folder_alone(digits_export: Export, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    export_space([digits_export.bundle.path], folder)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "app.py",
        "bundles",
        "edgewright",
        "requirements.txt",
    }
    assert "sdk: gradio" in (folder / "README.md").read_text()
    wanted = (folder / "requirements.txt").read_text()
    assert "gradio==" in wanted
    assert "torch" not in wanted
    # What is imported must come from the folder; the page is built and answers, only not served.
    code = (
        "import sys, pathlib; sys.path.insert(0, '.'); import edgewright, app;"
        "assert pathlib.Path(edgewright.__file__).is_relative_to(pathlib.Path.cwd());"
        "from edgewright.runtime import loading; assert pathlib.Path(loading.__file__).is_relative_to(pathlib.Path.cwd());"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules;"
        "model = next(iter(app.models.values())); vector = model.bundle.manifest.golden[0];"
        "print(model.label(model.bundle.read(vector.image)).label)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in digits_export.bundle.manifest.labels


def test_space_does_not_overwrite(digits_export: Export, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        export_space([digits_export.bundle.path], tmp_path)
    with pytest.raises(BundleError, match="No bundle at"):
        export_space([tmp_path / "nowhere"], tmp_path / "space")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt"}
