"""What a trained network makes of a split: logits, accuracy, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import track
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Renderer, batches
from edgewright.train.data.samples import Sample
from edgewright.train.features import ActivationCache
from edgewright.train.processes import Processes

__all__ = ["SplitResult", "clean_renderer", "predict_cached", "predict_split"]

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
    network: nn.Module, samples: Sequence[Sample], spec: Preprocess, processes: Processes, description: str | None
) -> SplitResult:
    """Run `network` (uint8 pixels to logits) in eval mode, float32, over `samples`; silently without a description.

    Processes share the batches out among them, whole; everyone gets the whole result, in the order of `samples`.
    """
    network.eval()
    renderer = clean_renderer(samples, spec)
    mine = np.array([index for part in processes.share(_parts(len(samples))) for index in part], dtype=np.int64)
    source = batches(renderer, mine, view=0, batch=_BATCH)
    shown = source if description is None else track(source, description, -(-len(mine) // _BATCH))
    found = []
    with torch.inference_mode():
        for batch in shown:
            logits = network(batch.inputs.to(processes.device)).float().cpu().numpy()
            found.append((batch.indices.numpy(), logits))
    return _joined(processes.gather(found), [sample.label for sample in samples])


def predict_cached(tail: nn.Module, cache: ActivationCache, labels: Sequence[int], processes: Processes) -> SplitResult:
    """The same for the trained part of a network, over cached activations of view 0."""
    tail.eval()
    found = []
    with torch.inference_mode():
        for part in processes.share(_parts(len(labels))):
            values = torch.from_numpy(cache.read(0, part))
            found.append((part, tail(values.to(processes.device)).float().cpu().numpy()))
    cache.release()
    return _joined(processes.gather(found), labels)


def _parts(count: int) -> list[npt.NDArray[np.int64]]:
    return [np.arange(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]


def _joined(
    found: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], labels: Sequence[int]
) -> SplitResult:
    logits = np.empty((len(labels), found[0][1].shape[1]), np.float32)
    for indices, values in found:
        logits[indices] = values
    return SplitResult(logits, np.asarray(labels, dtype=np.int64))
