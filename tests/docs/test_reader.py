"""The bundle's reader in JavaScript, in a real Node with a real ONNX Runtime from npm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgewright.export.exporter import Export

READER = Path(__file__).resolve().parents[2] / "docs" / "examples" / "reader.mjs"
PACKAGE = "onnxruntime-node@1.30"
INSTALL_S = 200

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`npm install onnxruntime-node`, with the reader beside it. Its install script would fetch CUDA, and is not run."""
    if missing := [tool for tool in ("node", "npm") if shutil.which(tool) is None]:
        pytest.skip(f"needs {missing[0]}, which is not installed here")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        pytest.skip(f"npm has no {PACKAGE} for this machine: {done.stderr.strip()[-300:]}")
    shutil.copy(READER, folder)
    return folder / READER.name


@pytest.fixture
def bundle(tmp_path: Path, digits_export: Export) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(digits_export.bundle.path, tmp_path / "bundle"))


def node(reader: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", reader, *arguments], capture_output=True, encoding="utf-8", timeout=60)


@pytest.mark.parametrize("artefact", ["model.fp32", "model.fp16", "model.int8.ort-x86"])
def test_golden_vectors_pass(reader: Path, bundle: Path, artefact: str) -> None:
    done = node(reader, bundle, artefact)
    assert done.returncode == 0, done.stderr
    *labels, last = done.stdout.splitlines()
    assert len(labels) == len(json.loads((bundle / "manifest.json").read_text())["golden"])
    assert last.startswith(f"{artefact}: logits differ by up to ")


def test_without_a_name_it_takes_what_runs_here(reader: Path, bundle: Path) -> None:
    done = node(reader, bundle)
    assert done.returncode == 0, done.stderr
    assert "ort-arm" not in done.stdout or "aarch64" in done.stdout


def test_altered_file_is_refused(reader: Path, bundle: Path) -> None:
    tensor = bundle / "golden" / "000.rgb"
    tensor.write_bytes(bytes([tensor.read_bytes()[0] ^ 1]) + tensor.read_bytes()[1:])
    done = node(reader, bundle)
    assert done.returncode != 0
    assert "'golden/000.rgb' was altered" in done.stderr


def test_other_logits_fail(reader: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["golden"][0]["logits"][0] += 1000
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert node(reader, bundle, "model.fp32").returncode == 1


def test_it_is_as_short_as_the_page_says() -> None:
    lines = len(READER.read_text(encoding="utf-8").splitlines())
    assert lines <= 60
    assert f"in {lines} lines" in (READER.parents[1] / "bundle.md").read_text(encoding="utf-8")
