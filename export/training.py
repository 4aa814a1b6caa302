"""Quantization-aware training within an export: on the run's training split, judged on its validation split."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import numpy.typing as npt
import onnx

from edgewright.export.ladder import Train
from edgewright.export.qat import finetune
from edgewright.export.quantization.profiles import PROFILES
from edgewright.export.quantization.workshop import Workshop
from edgewright.export.source import ExportSource
from edgewright.export.trial import Trial
from edgewright.runtime.console import notice, warn
from edgewright.runtime.errors import GateError, UsageError
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Renderer, batches, epoch_order

__all__ = ["make_train"]

_BATCH = 32
_MOST_STEPS = 200
"""Batches in an epoch: it is the ranges that learn most, and they learn quickly."""

_CROP, _JITTER = 0.7, 0.1
"""Gentle: the network has learned its lesson, and ranges should be those of pictures as the device sees them."""


def make_train(source: ExportSource, workshop: Workshop, trial: Trial, epochs: int) -> Train:
    """A function that trains a Q/DQ graph of a profile, each profile once.

    Args:
        source: Its `training` pictures are shown.
        workshop: Has the float graph, which teaches.
        trial: Judges what comes out.
        epochs: At most; 0 for none.
    """
    done: dict[str, onnx.ModelProto | None] = {}

    def train(graph: onnx.ModelProto, profile: str) -> onnx.ModelProto | None:
        if trial.settled:
            return None
        if profile not in done:
            done[profile] = _train(graph, profile)
        return done[profile]

    def _train(graph: onnx.ModelProto, profile: str) -> onnx.ModelProto | None:
        if not epochs or len(source.training) < 2 * _BATCH:
            notice(f"{profile}: no quantization-aware training: {_why_not(source, epochs)}")
            return None
        labels = np.array([sample.label for sample in source.training])
        steps = min(_MOST_STEPS, len(labels) // _BATCH)
        notice(f"{profile}: quantization-aware training, at most {epochs} epochs of {steps} batches")
        renderer = Renderer(source.training, source.preprocess, Augmentation(_CROP, source.mirrored, _JITTER), 0)

        def epoch_batches(epoch: int) -> Generator[npt.NDArray[np.uint8], None, None]:
            order = epoch_order(labels, 0, epoch, balanced=False)[: steps * _BATCH]
            for batch in batches(renderer, order, view=epoch, batch=_BATCH):
                yield batch.inputs.numpy()

        try:
            result = finetune(
                workshop.base(PROFILES[profile].pixels).model,
                graph,
                epoch_batches,
                epochs=epochs,
                steps=steps,
                evaluate=lambda trained: trial.score(trained, profile),
                target=trial.target,
            )
        except (GateError, UsageError) as error:
            warn(f"{profile}: quantization-aware training came to nothing: {error}")
            return None
        return result.model if result.agreement is not None else None

    return train


def _why_not(source: ExportSource, epochs: int) -> str:
    if not epochs:
        return "--qat-epochs 0"
    return f"{len(source.training)} training pictures with labels, expected at least {2 * _BATCH}"
