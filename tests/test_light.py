"""What starting the command line costs: nothing that `--help` does not need is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("numpy", "PIL", "onnxruntime", "openvino", "torch", "torchvision", "onnx", "onnxscript", "nncf"),
    *("sklearn", "scipy", "matplotlib", "yaml", "safetensors", "tensorboard", "gradio", "fastapi"),
    *("starlette", "uvicorn", "uvloop", "httptools", "prometheus_client"),
}

HELP = """
import sys
from edgewright.cli import main
sys.argv = ["edgewright", *sys.argv[1:]]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print("modules:", *sys.modules)
"""


def imported(folder: Path, code: str, *argv: str) -> set[str]:
    """The top-level packages that are loaded after `code` has run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    modules = found.stdout.splitlines()[-1].removeprefix("modules: ").split()
    assert "edgewright" in modules
    return {module.partition(".")[0] for module in modules}


def test_importing_edgewright_is_nearly_free(tmp_path: Path) -> None:
    assert imported(tmp_path, "import edgewright, sys; print('modules:', *sys.modules)").isdisjoint({*HEAVY, "typer"})


@pytest.mark.parametrize(
    "argv",
    [
        "--help",
        "--version",
        "train --help",
        "data check --help",
        "backbones --help",
        "audit --help",
        "export --help",
        "predict --help",
        "bench --help",
        "serve --help",
    ],
)
def test_help_imports_nothing_heavy(tmp_path: Path, argv: str) -> None:
    assert imported(tmp_path, HELP, *argv.split()) & HEAVY == set()
