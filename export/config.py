"""Everything an export can be told; flags and `--config FILE.yaml` fill the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ExportConfig"]


class ExportConfig(BaseModel):
    """An export. `run` is a run folder or the name of a backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    out: Path
    formats: tuple[Literal["onnx", "openvino", "tensorrt"], ...] = Field(("onnx", "openvino"), min_length=1)
    precisions: tuple[Literal["fp32", "fp16", "bf16", "int8"], ...] = Field(("fp32", "bf16", "int8"), min_length=1)
    max_drop: float = Field(1.0, ge=0, le=100)
    calibration: Path | None = None
    calibration_images: int = Field(200, ge=8, le=10_000)
    calibration_method: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"
    qat_epochs: int = Field(3, ge=0, le=100)
    weights: str = "imagenet"
    imgsz: int | None = Field(None, ge=16, le=1024)
    explain: bool = False
    golden: int = Field(6, ge=1, le=64)
    triton: Path | None = None
