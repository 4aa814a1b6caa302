"""One small real run and its export, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.export.config import ExportConfig
from edgewright.export.exporter import Export, export
from edgewright.train.config import TrainConfig
from edgewright.train.run import Run
from edgewright.train.trainer import train


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SqueezeNet with random weights and a head for digits: the fastest to export of what torchvision has."""
    out = tmp_path_factory.mktemp("run") / "digits"
    return train(TrainConfig(data="digits", backbone="squeezenet1_1", weights="none", imgsz=48, out=str(out)))


@pytest.fixture(scope="session")
def digits_export(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """That run as a bundle with every artefact, whatever INT8 costs it."""
    out = tmp_path_factory.mktemp("export") / "bundle"
    return export(
        ExportConfig(
            run=str(digits_run.folder),
            out=out,
            formats=("onnx", "openvino", "tensorrt"),
            precisions=("fp32", "fp16", "bf16", "int8"),
            max_drop=100,
            calibration_images=64,
        )
    )


@pytest.fixture
def bundle_path(digits_export: Export) -> Path:
    """The bundle's folder, to be read only."""
    return digits_export.bundle.path
