"""What labelling a picture costs on a device: none of the libraries of training and export."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """
import sys
import edgewright
with edgewright.load(sys.argv[1], backend="onnxruntime") as classifier:
    print(classifier(sys.argv[2]).label)
print(*sys.modules)
"""


@pytest.fixture(scope="session")
def lines(python: Callable[..., subprocess.CompletedProcess[str]], tiny_bundle: Path) -> list[str]:
    """The label that a device prints, and the modules it has then loaded."""
    return python("-c", CODE, tiny_bundle, tiny_bundle / "golden" / "001.jpeg").stdout.splitlines()


def test_picture_gets_its_label(lines: list[str]) -> None:
    assert lines[0] == "blue"


@pytest.mark.parametrize(
    "package",
    [
        *("torch", "torchvision", "onnx", "onnxscript", "nncf", "openvino", "safetensors"),
        *("matplotlib", "sklearn", "scipy", "yaml", "tensorboard", "rich", "typer"),
    ],
)
def test_package_stays_out(lines: list[str], package: str) -> None:
    assert package not in {module.partition(".")[0] for module in lines[1].split()}
