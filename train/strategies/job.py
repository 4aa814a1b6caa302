"""What a strategy works on, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, plan_stages
from edgewright.train.checkpoint import write_tensors
from edgewright.train.config import TrainConfig
from edgewright.train.data import ImageData
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Renderer
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.processes import Processes
from edgewright.train.stages import StageRecord

__all__ = ["Job", "Outcome"]

_SMALLER = 176 / 224
"""Training at this share of the evaluation size is faster and no worse: a random crop shows things larger than a
centre crop does (Touvron et al., "Fixing the train-test resolution discrepancy", 2019)."""

_CROP, _CROP_OF_FILLED = 0.35, 0.7
"""Smallest area of a random crop; of a picture that its subject fills, small parts would say nothing."""

_SMALLEST_SHRUNK = 192
"""Below this size pictures are trained on as they are evaluated: little is left to shrink. MobileNetV3-small reached validation
top-1 0.54 at 128 px trained at 96 px, and 0.63 at 112 px trained at 112 px (clothing, built-in weights, 8 epochs)."""

_EPOCHS = 8
_EPOCHS_IN_BUDGET = 30
"""A budget is to be used, but more than this small datasets do not reward."""


@dataclass
class Job:
    """What a strategy works on.

    Attributes:
        network: Has a head for the data's classes, and fixed BatchNorm statistics if it is pretrained.
        pretrained: Whether it does not start from random.
        spec: Preprocessing at evaluation.
        folder: The run's.
        precision: What training computes in.
        started: `time.monotonic()` at which the run began, earlier parts of a resumed run counted.
        after_epoch: For callers that want to follow; called with each epoch's record.
    """

    config: TrainConfig
    data: ImageData
    network: Network
    pretrained: bool
    spec: Preprocess
    processes: Processes
    folder: Path
    precision: torch.dtype
    started: float
    after_epoch: Callable[[EpochRecord], None] = lambda _: None

    @cached_property
    def stages(self) -> StagePlan:
        """Where the network can be cut."""
        return plan_stages(self.network, torch.zeros(1, self.spec.crop, self.spec.crop, 3, dtype=torch.uint8))

    @cached_property
    def train_size(self) -> int:
        """Input size in training, pixels."""
        if self.config.train_imgsz is not None:
            return self.config.train_imgsz
        size = round(self.spec.crop * _SMALLER / 16) * 16
        if self.spec.crop < _SMALLEST_SHRUNK or not self._takes(size):
            return self.spec.crop
        return size

    def _takes(self, size: int) -> bool:
        """Whether the network can be shown pictures of another size than it is evaluated at (a transformer cannot)."""
        self.network.eval()
        try:
            with torch.inference_mode():
                self.network(torch.zeros(1, size, size, 3, dtype=torch.uint8))
        except (RuntimeError, AssertionError):
            return False
        return True

    @property
    def cache(self) -> Path:
        """Folder for what is computed once and deleted at the end."""
        return self.folder / "cache"

    @property
    def epochs(self) -> int:
        """Passes over the training split, at most."""
        if self.config.epochs is not None:
            return self.config.epochs
        return _EPOCHS if self.config.budget is None else _EPOCHS_IN_BUDGET

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` at which the budget is used up."""
        return None if self.config.budget is None else self.started + self.config.budget

    def renderer(self) -> Renderer:
        """The training split; view 0 clean, others augmented."""
        config, data = self.config, self.data
        mirror = data.mirrored if config.mirror is None else config.mirror
        scale = config.crop_scale or (_CROP_OF_FILLED if data.resize_to_crop else _CROP)
        how = Augmentation(scale, mirror, config.color_jitter, config.augment == "trivial")
        spec = self.spec.model_copy(update={"crop": self.train_size, "resize": max(self.spec.resize, self.train_size)})
        return Renderer(data.splits["train"], spec, how, config.seed)

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """int64 (N)."""
        return np.array([sample.label for sample in self.data.splits[split]], dtype=np.int64)

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """The trained backbone."""
        return self.network.backbone.state_dict()

    def save_weights(self, path: Path) -> None:
        """Write the backbone's tensors; only the first process does."""
        if self.processes.is_main:
            write_tensors(self.backbone_state(), path)

    def load_weights(self, path: Path) -> None:
        """Read what :meth:`save_weights` wrote."""
        self.processes.wait()
        self.network.to("cpu")
        self.network.backbone.load_state_dict(load_file(path))
        self.network.to(self.processes.device)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        results: By split; `val`, and `test` where there is one.
        note: What was done, in a line.
        trained_stages: Stages that learned, of `stages_total`; 0 for the head alone. None where it does not apply.
        stages: The attempts of `auto`.
    """

    records: tuple[EpochRecord, ...]
    results: dict[str, SplitResult]
    note: str
    trained_stages: int | None = None
    stages_total: int | None = None
    stages: tuple[StageRecord, ...] = field(default=())
