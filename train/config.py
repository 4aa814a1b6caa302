"""Everything a training run can be told; flags and `--config FILE.yaml` fill the same model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

__all__ = ["TrainConfig"]

Strategy = Literal["head", "partial", "full", "scratch"]


class TrainConfig(BaseModel):
    """A training run. `None` means: chosen from the data, the weights or the strategy; the run records the choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    backbone: str = "mobilenet_v2"
    weights: str = "imagenet"
    strategy: Strategy = "head"
    out: str | None = None
    epochs: int = Field(6, ge=1, le=10_000)
    batch: int = Field(32, ge=2, le=4096)
    imgsz: int | None = Field(None, ge=16, le=1024)
    lr: float | None = Field(None, gt=0, le=10)
    weight_decay: float = Field(0.02, ge=0, le=10)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    patience: int | None = Field(None, ge=1)
    freeze: int | None = Field(None, ge=1)
    views: int = Field(3, ge=1, le=64)
    crop_scale: float = Field(0.35, gt=0, le=1)
    color_jitter: float = Field(0.2, ge=0, lt=1)
    mirror: bool | None = None
    val_fraction: float = Field(0.15, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    per_class: int | None = Field(None, ge=1)
    teacher: str | None = None
    teacher_weights: str = "imagenet"
    teacher_imgsz: int | None = Field(None, ge=16, le=1024)
    distill_weight: float = Field(0.5, ge=0, le=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    workers: int | None = Field(None, ge=1, le=256)
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _scratch_has_no_weights(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("strategy") == "scratch":
            return {"weights": "none"} | values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.freeze is not None and self.strategy != "partial":
            raise ValueError(f"freeze belongs to strategy 'partial', not to '{self.strategy}'")
        if self.strategy == "scratch" and self.weights != "none":
            raise ValueError("strategy 'scratch' starts without weights: set weights to 'none'")
        if self.teacher is not None and self.strategy not in ("full", "scratch"):
            raise ValueError(f"a teacher belongs to strategy 'full' or 'scratch', not to '{self.strategy}'")
        return self
