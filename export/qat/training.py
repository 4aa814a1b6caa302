"""Quantization-aware training: a few epochs in which a quantized graph learns to answer as its float original does."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.nn import functional

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.qat.agreement import Agreement, check_agreement
from edgewright.export.qat.fitting import fit_ranges
from edgewright.export.qat.graph import TrainableGraph
from edgewright.export.simulate import open_session
from edgewright.runtime.console import notice, track, warn
from edgewright.runtime.errors import DataError, UsageError

__all__ = ["Batches", "QatRecord", "QatResult", "finetune"]

Batches: TypeAlias = Callable[[int], Generator[npt.NDArray[np.uint8], None, None]]
"""Epoch (from 1) -> batches of uint8 pixels (N, height, width, 3)."""

_SCALE_RATE = 30.0
"""How much faster than weights the logarithms of scales learn."""

_CLIP = 1.0
"""Largest norm of the gradient of all weights together."""

_FITTED = 128
"""Pictures that ranges are fitted to."""

_WATCHED = 32
"""Pictures on which the written graph is compared with the trained one."""


@dataclass(frozen=True)
class QatRecord:
    """An epoch; number 0 is the graph as it was given. `loss` is that of training, None for epoch 0."""

    epoch: int
    loss: float | None
    score: float
    seconds: float


@dataclass(frozen=True)
class QatResult:
    """What came out.

    Attributes:
        model: The best graph; the one that was given, if none was better.
        score: Its score.
        records: Epoch 0 first.
        agreement: How closely ONNX Runtime computes what was trained; None if the graph is the one that was given.
    """

    model: onnx.ModelProto
    score: float
    records: tuple[QatRecord, ...]
    agreement: Agreement | None


def finetune(
    float_model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    batches: Batches,
    *,
    epochs: int,
    steps: int,
    evaluate: Callable[[onnx.ModelProto], float],
    target: float | None = None,
    lr: float = 1e-5,
) -> QatResult:
    """Train the weights and the scales of `quantized`.

    The lesson is what the float graph answers to the same pixels (Hinton et al., "Distilling the Knowledge in a Neural
    Network", 2015), so that nothing new is learned and labels are not needed. Nothing is random in here: the result
    depends on the arguments alone. Nothing is written: an interrupt leaves everything as it was.

    Args:
        float_model: uint8 pixels to logits; the teacher, and where the weights start.
        quantized: With Q/DQ, see :class:`TrainableGraph`.
        batches: The training split.
        epochs: At most.
        steps: Batches in an epoch.
        evaluate: Score of a graph on validation, the higher the better; called before and after each epoch.
        target: Score that is good enough to stop.
        lr: Peak learning rate of the weights (AdamW, no weight decay, cosine).

    Raises:
        UsageError: a graph that cannot be trained.
        DataError: no batches.
        GateError: the engine does not compute what was trained.
    """
    if epochs < 1 or steps < 1:
        raise UsageError(
            f"Quantization-aware training over {epochs} epochs of {steps} batches; expected at least 1 of each."
        )
    started = time.monotonic()
    score = evaluate(quantized)
    records = [QatRecord(0, None, score, time.monotonic() - started)]
    best, best_agreement = quantized, None
    if target is not None and score >= target:
        return QatResult(best, score, tuple(records), None)
    student = _Student(TrainableGraph(float_model, quantized), float_model, lr, epochs * steps)
    with contextlib.closing(batches(1)) as source:
        watched = _fit_ranges(student.graph, float_model, islice(source, steps))
    for epoch in range(1, epochs + 1):
        started = time.monotonic()
        with contextlib.closing(batches(epoch)) as source:
            loss = student.learn(track(islice(source, steps), f"  training, epoch {epoch}/{epochs}", steps))
        if not math.isfinite(loss):
            warn("quantization-aware training has diverged and is stopped; the best graph before that is kept")
            break
        model = student.graph.to_onnx()
        agreement = check_agreement(student.graph, model, watched)
        reached = evaluate(model)
        records.append(QatRecord(epoch, loss, reached, time.monotonic() - started))
        notice(f"  epoch {epoch}/{epochs}  loss {loss:.4f}  score {reached:.4f}  {records[-1].seconds:.0f} s")
        if reached > score:
            best, score, best_agreement = model, reached, agreement
        if target is not None and reached >= target:
            break
    return QatResult(best, score, tuple(records), best_agreement)


def _fit_ranges(
    graph: TrainableGraph, float_model: onnx.ModelProto, batches: Iterable[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """Begin with ranges that fit; some of the pictures that they were fitted to."""
    parts: list[npt.NDArray[np.uint8]] = []
    for pixels in batches:
        parts.append(pixels)
        if sum(len(part) for part in parts) >= _FITTED:
            break
    if not parts:
        raise DataError("No pictures to train on: quantization-aware training needs the training split.")
    fitted = np.concatenate(parts)
    if changed := fit_ranges(graph, float_model, fitted):
        notice(f"  {changed} of {len(graph.activations)} ranges did not fit the training pictures and are set anew")
    return fitted[:_WATCHED]


class _Student:
    """A graph that learns to answer as its teacher does, within `steps` batches."""

    def __init__(self, graph: TrainableGraph, teacher: onnx.ModelProto, lr: float, steps: int) -> None:
        self.graph = graph
        self._teacher = open_session(teacher.SerializeToString())
        groups: list[dict[str, Any]] = [
            {"params": graph.weights, "lr": lr},
            {"params": graph.log_scales, "lr": lr * _SCALE_RATE},
        ]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
        )

    def learn(self, batches: Iterable[npt.NDArray[np.uint8]]) -> float:
        """Mean loss; not finite if it has diverged."""
        total, seen = 0.0, 0
        for pixels in batches:
            total, seen = total + self._step(pixels) * len(pixels), seen + len(pixels)
            if not math.isfinite(total):
                break
        return total / max(1, seen)

    def _step(self, pixels: npt.NDArray[np.uint8]) -> float:
        lesson = torch.from_numpy(self._teacher.run(None, {INPUT_NAME: pixels})[0])
        logits = self.graph(torch.from_numpy(pixels))
        loss = functional.kl_div(logits.log_softmax(1), lesson.log_softmax(1), reduction="batchmean", log_target=True)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.graph.weights, _CLIP)
        self._optimizer.step()
        self._schedule.step()
        return loss.item()
