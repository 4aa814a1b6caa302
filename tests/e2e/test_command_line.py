"""The command line as a person meets it: the whole path once, and every kind of bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgewright.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


def edgewright(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgewright", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        timeout=500,
    )


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in this process, in `tmp_path`: what is refused at once takes a process longer to start."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["edgewright", *arguments])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess([], int(stopped.value.code or 0), said.out, said.err)

    return run


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that refused its input."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgewright: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def pictures(root: Path, **counts: int) -> Path:
    """A folder per class with so many pictures, each class of its own colour."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            colour = (40 + 60 * number, 30 + index, 200 - 60 * number)
            Image.new("RGB", (40, 30), colour).save(root / name / f"{index}.jpg")
    return root


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """`edgewright quickstart --json` in an empty folder, with no way to the network for torch's downloads."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = edgewright("quickstart", "--json", cwd=folder, TORCH_HOME=str(folder / "torch"))
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_quickstart_reaches_its_accuracy_with_every_artefact(quickstart: tuple[Path, dict[str, Any]]) -> None:
    _, document = quickstart
    assert document["train"]["test"]["top1"] >= 0.95
    artefacts = document["export"]["artefacts"]
    assert {row["name"] for row in artefacts} - {"openvino.bf16"} == {
        "model.fp32",
        "model.int8.ort-arm",
        "model.int8.ort-x86",
        "openvino.fp32",
        "openvino.int8",
    }
    assert all(row["passed"] and row["test_top1"] >= 0.95 for row in artefacts)
    assert document["export"]["recommended"] in {row["name"] for row in artefacts}
    assert document["verify"]["passed"]


@pytest.mark.slow
def test_quickstart_measures_every_artefact(quickstart: tuple[Path, dict[str, Any]]) -> None:
    _, document = quickstart
    reports = document["bench"]["reports"]
    # All but those that are made for another kind of CPU.
    assert len(reports) == len(document["export"]["artefacts"]) - 1
    for report in reports:
        assert 0 < report["p50_ms"] <= report["p90_ms"]
        assert set(report["stages_ms"]) == {"decode", "preprocess", "copy_in", "inference", "copy_out", "postprocess"}
        # Medians of stages need not add up to the median of the whole, but nearly.
        assert sum(report["stages_ms"].values()) == pytest.approx(report["p50_ms"], rel=0.25)


@pytest.mark.slow
def test_run_folder_holds_what_people_look_at(quickstart: tuple[Path, dict[str, Any]]) -> None:
    folder, document = quickstart
    run = folder / document["run"]
    for name in ("curves.png", "confusion_matrix.png", "mistakes.png"):
        with Image.open(run / name) as picture:
            # Flatter where there is little to show: one epoch, one row of mistakes, which may be a single one.
            assert picture.width > (200 if name == "mistakes.png" else 400)
            assert picture.height > 100
    names = {path.name for path in run.iterdir()}
    assert {
        "best.safetensors",
        "config.yaml",
        "metrics.csv",
        "report.html",
        "report.md",
        "run.json",
        "samples.csv",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not (run / "cache").exists()


@pytest.mark.slow
def test_finished_run_is_not_overwritten_unless_asked(quickstart: tuple[Path, dict[str, Any]]) -> None:
    folder, document = quickstart
    before = (folder / document["run"] / "best.safetensors").read_bytes()
    done = edgewright(
        "train", "digits", "--weights", "none", "--backbone", "resnet18", "--out", document["run"], cwd=folder
    )
    assert "Choose another --out" in refusal(done)
    assert (folder / document["run"] / "best.safetensors").read_bytes() == before


@pytest.mark.slow
def test_predict_labels_what_it_can_and_names_what_it_cannot(quickstart: tuple[Path, dict[str, Any]]) -> None:
    folder, document = quickstart
    bundle = folder / document["bundle"]
    (folder / "torn.png").write_bytes(next((bundle / "golden").glob("*.png")).read_bytes()[:60])
    done = edgewright("predict", bundle, bundle / "golden", folder / "torn.png", "--json", cwd=folder)
    assert done.returncode == 2
    predictions = json.loads(done.stdout)["predictions"]
    assert ["error" in prediction for prediction in predictions] == [False] * 6 + [True]
    manifest = json.loads((bundle / "manifest.json").read_text())
    right = [
        found["label"] == golden["label"] for found, golden in zip(predictions[:6], manifest["golden"], strict=True)
    ]
    assert sum(right) >= 5


@pytest.mark.slow
def test_altered_bundle_is_refused(quickstart: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, document = quickstart
    bundle = shutil.copytree(folder / document["bundle"], tmp_path / "bundle")
    model = bytearray((bundle / "artefacts" / "model.fp32.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "artefacts" / "model.fp32.onnx").write_bytes(model)
    assert "was altered" in refusal(edgewright("verify", bundle, cwd=tmp_path))


@pytest.mark.slow
def test_damaged_training_pictures_are_named_skipped_and_counted(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", cat=8, dog=8)
    (data / "cat" / "3.jpg").write_bytes((data / "cat" / "3.jpg").read_bytes()[:200])
    (data / "dog" / "notes.txt").write_text("not a picture")
    options = ("--backbone", "squeezenet1_1", "--weights", "none", "--imgsz", "32", "--out", "run")
    done = edgewright("train", data, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 of 16 pictures cannot be read" in done.stderr
    assert "cat/3.jpg" in done.stderr
    skipped = (tmp_path / "run" / "skipped.csv").read_text()
    assert "cat/3.jpg" in skipped
    assert "dog/notes.txt" in skipped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "mobilnet_v2"), "Near names: mobilenet_v2"),
        (("--weights", "no-such-file.pth"), "No weights at 'no-such-file.pth'"),
        (("--weights", "imagenet"), "Use --weights builtin"),
        (("--backbone", "resnet18", "--weights", "builtin"), "built-in weights are for 'mobilenet_v3_small'"),
        (("--strategy", "magic"), "--strategy"),
        (("--epochs", "0"), "--epochs"),
        (("--weights", "none", "--freeze", "2"), "freeze belongs to strategy 'partial'"),
        (("--config", "no-such-file.yaml"), "Cannot read the configuration"),
        (("--weights", "none", "--resume", "--out", "nowhere"), "Nothing to resume"),
    ],
)
def test_bad_training_option_is_refused(
    options: tuple[str, ...],
    message: str,
    tmp_path: Path,
    here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    pictures(tmp_path / "data", cat=6, dog=6)
    # An address that nothing listens on stands for a machine without a network.
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path)}
    done = here("train", "data", *options, **nowhere)
    assert message in refusal(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "No folder at"),
        ({"cat": 6}, "one class ('cat')"),
        ({"cat": 6, "dog": 0}, "Class 'dog' is empty"),
        ({"cat": 6, "dog": 1}, "Class 'dog' has only 1 picture"),
    ],
)
def test_bad_training_folder_is_refused(
    counts: dict[str, int], message: str, tmp_path: Path, here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pictures(tmp_path / "data", **counts)
    assert message in refusal(here("train", "data", "--weights", "none"))
    assert not (tmp_path / "runs").exists()


def test_missing_extra_names_what_to_install(tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    # Runs before anything else in the child; None is how Python notes that a module cannot be had.
    (blocker / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = edgewright("train", "digits", "--weights", "none", cwd=tmp_path, PYTHONPATH=str(blocker))
    assert "pip install 'edgewright[train]'" in refusal(done)


def test_help_and_version_answer(tmp_path: Path) -> None:
    done = edgewright("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("quickstart", "train", "export", "verify", "val", "predict", "bench"):
        assert command in done.stdout
    assert edgewright("--version", cwd=tmp_path).stdout.strip().count(".") == 2


def test_readme_opens_with_the_two_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    first = readme.index("pip install uv && uv run edgewright quickstart")
    assert first < readme.index("pip install uv && uv run pytest") < 1500
