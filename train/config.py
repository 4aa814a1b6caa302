"""Everything a training run can be told; flags and `--config FILE.yaml` fill the same model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

__all__ = ["TrainConfig"]

Strategy = Literal["auto", "head", "partial", "full", "scratch"]

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def _seconds(value: Any) -> Any:
    """'90s', '10m', '1.5h' or a number of seconds."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", value)
        if found is None:
            raise ValueError("expected a duration such as 90s, 10m or 1.5h")
        return float(found[1]) * _UNITS_S[found[2] or "s"]
    return value


Duration = Annotated[float, BeforeValidator(_seconds)]


class TrainConfig(BaseModel):
    """A training run. `None` means: chosen from the data, the weights or the strategy; the run records the choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    data_root: str | None = None
    backbone: str = "mobilenet_v2"
    weights: str = "imagenet"
    strategy: Strategy = "auto"
    budget: Duration | None = Field(None, ge=10)
    out: str | None = None

    epochs: int | None = Field(None, ge=1, le=10_000)
    batch: int = Field(32, ge=2, le=4096)
    accumulate: int = Field(1, ge=1, le=1024)
    imgsz: int | None = Field(None, ge=16, le=1024)
    train_imgsz: int | None = Field(None, ge=16, le=1024)
    decode: Literal["full", "reduced"] = "full"
    patience: int | None = Field(None, ge=1)
    freeze: int | None = Field(None, ge=1)

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = Field(None, gt=0, le=10)
    layer_decay: float | None = Field(None, gt=0, le=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0, le=10)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1)
    balance: Literal["none", "loss", "sampler"] = "none"

    views: int = Field(3, ge=1, le=64)
    augment: Literal["basic", "trivial"] = "basic"
    crop_scale: float | None = Field(None, gt=0, le=1)
    color_jitter: float = Field(0.2, ge=0, lt=1)
    mirror: bool | None = None
    mixup: float | None = Field(None, ge=0, le=10)
    cutmix: float = Field(0.0, ge=0, le=10)

    val_fraction: float = Field(0.15, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    per_class: int | None = Field(None, ge=1)

    teacher: str | None = None
    teacher_weights: str = "imagenet"
    teacher_imgsz: int | None = Field(None, ge=16, le=1024)
    distill_weight: float = Field(0.5, ge=0, le=1)
    distill_temperature: float = Field(2.0, gt=0, le=100)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    workers: int | None = Field(None, ge=1, le=256)
    checkpoint_s: Duration = Field(300.0, ge=0)
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
        if self.teacher is not None and (self.mixup or self.cutmix):
            raise ValueError(
                "a teacher's answers are cached for pictures as they are: no mixup or cutmix with a teacher"
            )
        return self
