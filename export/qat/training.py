"""Quantization-aware training: a few epochs in which a quantized graph learns to answer as its float original does."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.nn import functional

from edgewright.export.qat.agreement import Agreement, check_agreement
from edgewright.export.qat.engine import open_session
from edgewright.export.qat.fitting import fit_ranges
from edgewright.export.qat.graph import TrainableGraph
from edgewright.runtime.console import notice, track, warn
from edgewright.runtime.errors import DataError, UsageError

__all__ = ["Batches", "QatRecord", "QatResult", "finetune"]

Batches: TypeAlias = Callable[[int], Generator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]], None, None]]
"""Epoch (from 1) -> batches of uint8 pixels (N, height, width, 3) and labels int64 (N)."""

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
    label_weight: float = 0.0,
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
        label_weight: Share of the labels' own cross-entropy in the loss, 0 to 1.

    Raises:
        UsageError: a graph that cannot be trained.
        DataError: no batches.
        GateError: the engine does not compute what was trained.
    """
    if epochs < 1 or steps < 1:
        raise UsageError(
            f"Quantization-aware training over {epochs} epochs of {steps} batches; expected at least 1 of each."
        )
    return _Finetuning(float_model, quantized, batches, epochs, steps, evaluate, target, lr, label_weight).run()


class _Finetuning:
    def __init__(
        self,
        float_model: onnx.ModelProto,
        quantized: onnx.ModelProto,
        batches: Batches,
        epochs: int,
        steps: int,
        evaluate: Callable[[onnx.ModelProto], float],
        target: float | None,
        lr: float,
        label_weight: float,
    ) -> None:
        self.float_model = float_model
        self.quantized, self.batches, self.epochs, self.steps = quantized, batches, epochs, steps
        self.evaluate, self.target, self.label_weight = evaluate, target, label_weight
        self.graph = TrainableGraph(float_model, quantized)
        self.teacher = open_session(float_model)
        self.input = self.teacher.get_inputs()[0].name
        groups: list[dict[str, Any]] = [
            {"params": self.graph.weights, "lr": lr},
            {"params": self.graph.log_scales, "lr": lr * _SCALE_RATE},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        total = epochs * steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
        )

    def run(self) -> QatResult:
        started = time.monotonic()
        score = self.evaluate(self.quantized)
        records = [QatRecord(0, None, score, time.monotonic() - started)]
        best = QatResult(self.quantized, score, (), None)
        if self.target is not None and score >= self.target:
            return QatResult(best.model, best.score, tuple(records), None)
        watched = self._fit_ranges()
        for epoch in range(1, self.epochs + 1):
            started = time.monotonic()
            loss = self._epoch(epoch)
            if not math.isfinite(loss):
                warn("quantization-aware training has diverged and is stopped; the best graph before that is kept")
                break
            model = self.graph.to_onnx()
            agreement = check_agreement(self.graph, model, watched)
            score = self.evaluate(model)
            records.append(QatRecord(epoch, loss, score, time.monotonic() - started))
            notice(f"  epoch {epoch}/{self.epochs}  loss {loss:.4f}  score {score:.4f}  {records[-1].seconds:.0f} s")
            if score > best.score:
                best = QatResult(model, score, (), agreement)
            if self.target is not None and score >= self.target:
                break
        return QatResult(best.model, best.score, tuple(records), best.agreement)

    def _fit_ranges(self) -> npt.NDArray[np.uint8]:
        """Begin with ranges that fit; some of the pictures that they were fitted to."""
        parts: list[npt.NDArray[np.uint8]] = []
        with contextlib.closing(self.batches(1)) as source:
            for pixels, _ in islice(source, self.steps):
                parts.append(pixels)
                if sum(len(part) for part in parts) >= _FITTED:
                    break
        if not parts:
            raise DataError("No pictures to train on: quantization-aware training needs the training split.")
        pixels = np.concatenate(parts)
        if changed := fit_ranges(self.graph, self.float_model, pixels):
            notice(
                f"  {changed} of {len(self.graph.activations)} ranges did not fit the training pictures and are set anew"
            )
        return pixels[:_WATCHED]

    def _epoch(self, epoch: int) -> float:
        """Mean loss."""
        total, seen = 0.0, 0
        with contextlib.closing(self.batches(epoch)) as source:
            for pixels, labels in track(
                islice(source, self.steps), f"  training, epoch {epoch}/{self.epochs}", self.steps
            ):
                loss = self._step(pixels, labels)
                total, seen = total + loss * len(pixels), seen + len(pixels)
                if not math.isfinite(total):
                    break
        return total / max(1, seen)

    def _step(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
        lesson = torch.from_numpy(self.teacher.run(None, {self.input: pixels})[0])
        logits = self.graph(torch.from_numpy(pixels))
        loss = functional.kl_div(logits.log_softmax(1), lesson.log_softmax(1), reduction="batchmean", log_target=True)
        if self.label_weight:
            errors = functional.cross_entropy(logits, torch.from_numpy(labels))
            loss = (1 - self.label_weight) * loss + self.label_weight * errors
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.graph.weights, _CLIP)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()
