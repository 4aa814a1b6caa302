"""What a trained network makes of a split: logits, accuracy, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import track
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Renderer, batches
from edgewright.train.data.samples import Sample

__all__ = ["SplitResult", "clean_renderer", "predict_split"]

_BATCH = 32


@dataclass(frozen=True)
class SplitResult:
    """Logits float32 (N, classes) and labels int64 (N) of one split, in the split's order."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Index of the largest logit, (N)."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @property
    def top1(self) -> float:
        """Share of samples whose largest logit is their label."""
        return float((self.predicted == self.labels).mean())

    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts, axes [true class, predicted class]."""
        classes = self.logits.shape[1]
        flat = np.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return flat.reshape(classes, classes)


def clean_renderer(samples: Sequence[Sample], spec: Preprocess) -> Renderer:
    """A renderer for evaluation: only view 0, which is `runtime.preprocess`."""
    return Renderer(samples, spec, Augmentation(1.0, False, 0.0), seed=0)


def predict_split(
    network: nn.Module, samples: Sequence[Sample], spec: Preprocess, device: torch.device, description: str | None
) -> SplitResult:
    """Run `network` (uint8 pixels to logits) in eval mode, float32, over `samples`; silently without a description."""
    network.eval()
    renderer = clean_renderer(samples, spec)
    source = batches(renderer, range(len(samples)), view=0, batch=_BATCH, threads=available_cores())
    shown = source if description is None else track(source, description, -(-len(samples) // _BATCH))
    logits, labels = [], []
    with torch.inference_mode():
        for batch in shown:
            logits.append(network(batch.inputs.to(device)).float().cpu().numpy())
            labels.append(batch.labels.numpy())
    return SplitResult(np.concatenate(logits), np.concatenate(labels))
