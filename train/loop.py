"""Gradient descent over epochs: a schedule, a budget, and everything that is needed to go on after an interrupt."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgewright.runtime.console import notice, track
from edgewright.train.average import WeightAverage
from edgewright.train.checkpoint import read_state, write_state
from edgewright.train.data.loading import Batch
from edgewright.train.distill import Taught
from edgewright.train.mixing import Mixer
from edgewright.train.processes import Processes

__all__ = ["EpochRecord", "Plan", "fit"]

_REPLANNED = 8
"""Batches after which a budget's plan is made anew: other work on the machine comes and goes."""

_TIMED_STEPS = 3
"""Batches that are run, and forgotten, to learn how many fit into a budget."""


@dataclass(frozen=True)
class EpochRecord:
    """One row of metrics.csv. `seconds` is the whole epoch, `train_seconds` what of it was training."""

    epoch: int
    train_loss: float
    train_top1: float
    val_top1: float
    lr: float
    seconds: float
    train_seconds: float = 0.0
    stage: str = ""


@dataclass(frozen=True)
class Plan:
    """What :func:`fit` is to do.

    Attributes:
        epochs: Passes over the training split; with a deadline, as many as fit, and these at the most.
        steps: Batches in a pass.
        source: (epoch, from 1; first batch of it) -> the batches from there on, this process' share of each.
        validate: Top-1 on validation of the model in its present state.
        parameters: Parameter groups with their peak learning rates.
        mixed_from: Pictures are mixed if so many batches are planned at the beginning.
        class_weights: float32 (classes), for a loss that balances classes.
        deadline: `time.monotonic()` at which training and validation are to be over.
        after_epoch: Called with each record; its time is in no record, and not of the budget.
        stage: A name for the records.
    """

    epochs: int
    steps: int
    source: Callable[[int, int], Generator[Batch, None, None]]
    validate: Callable[[], float]
    parameters: list[dict[str, Any]]
    optimizer: str
    weight_decay: float
    warmup: float
    label_smoothing: float
    accumulate: int
    average: float
    mixer: Mixer
    mixed_from: int
    class_weights: torch.Tensor | None
    patience: int | None
    precision: torch.dtype
    processes: Processes
    checkpoint_s: float
    deadline: float | None = None
    after_epoch: Callable[[EpochRecord], None] = lambda _: None
    taught: Taught | None = None
    taught_weight: float = 0.0
    stage: str = ""


@dataclass
class _Progress:
    """Where training stands. `batch` is the next batch of `epoch`; `total` is how many batches are planned in all."""

    total: int
    mixing: bool = False
    epoch: int = 1
    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    train_s: float = 0.0
    best: float = -1.0
    stale: int = 0
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)

    def done(self, steps: int) -> int:
        return (self.epoch - 1) * steps + self.batch


def fit(model: nn.Module, plan: Plan, state_file: Path, keep: Callable[[], None]) -> list[EpochRecord]:
    """Train `model` with a linear warm-up and a cosine schedule (Loshchilov and Hutter, "SGDR", 2017).

    Args:
        model: Batch inputs to logits.
        plan: See :class:`Plan`.
        state_file: Model, optimizer, average, random state and progress; written after each epoch and every
            `plan.checkpoint_s` seconds inside one. If it is there, training goes on from it.
        keep: Called whenever validation was never better; saves the model as it then is.

    Returns:
        One record per epoch, those before an interruption included. With a deadline the last may be a part of one.
    """
    return _Fit(model, plan, state_file, keep).run()


class _Fit:
    def __init__(self, model: nn.Module, plan: Plan, state_file: Path, keep: Callable[[], None]) -> None:
        self.model, self.plan, self.state_file, self.keep = model, plan, state_file, keep
        self.device = plan.processes.device
        trainee: nn.Module = plan.taught if plan.taught is not None else model
        self.trainee = plan.processes.wrap(trainee)
        self.optimizer = _optimizer(plan)
        self.peaks = [float(group["lr"]) for group in plan.parameters]
        self.average = WeightAverage([p for group in plan.parameters for p in group["params"]], plan.average)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.precision == torch.float16)
        self.progress = _Progress(total=plan.epochs * plan.steps)
        self.deadline = plan.deadline
        self.validation_s = 0.0

    def run(self) -> list[EpochRecord]:
        plan = self.plan
        if not self._resume():
            if self.deadline is not None:
                self._replan(self._measure())
                if not self.progress.total:
                    # Something else may have had the machine just then; a run is not given up for that.
                    self._replan(self._measure())
            self.progress.mixing = bool(str(plan.mixer)) and self.progress.total >= plan.mixed_from
            mixing = f", with {plan.mixer}" if self.progress.mixing else ""
            notice(f"  {self.progress.total / plan.steps:.3g} epochs of {plan.steps} batches planned{mixing}")
        while self.progress.done(plan.steps) < self.progress.total:
            stale = self.progress.stale
            if plan.patience is not None and stale >= plan.patience:
                notice(f"  stopped early: no better validation for {stale} epochs (patience {plan.patience})")
                break
            self._epoch()
        return [EpochRecord(**record) for record in self.progress.records]

    def _epoch(self) -> None:
        plan, progress = self.plan, self.progress
        started = time.monotonic()
        before, trained_before = progress.seconds, progress.train_s
        first_batch = progress.batch
        epochs = math.ceil(progress.total / plan.steps)
        batches = plan.source(progress.epoch, progress.batch)
        saved = started
        self.model.train()
        label = f"  epoch {progress.epoch}/{epochs}"
        with contextlib.closing(batches):
            for batch in track(batches, label, plan.steps - progress.batch):
                if progress.batch >= self._planned():
                    break
                self._step(batch)
                now = time.monotonic()
                if progress.batch % _REPLANNED == 0:
                    self._replan((now - started) / (progress.batch - first_batch))
                # Gradients that wait for the rest of their group are not in the state.
                complete = progress.batch % plan.accumulate == 0
                if now - saved > plan.checkpoint_s and complete and progress.batch < self._planned():
                    progress.seconds = before + now - started
                    progress.train_s = trained_before + now - started
                    self._save()
                    saved = now
        train_s = time.monotonic() - started
        loss, correct, seen = self._totals()
        with self.average.in_place():
            val_top1 = plan.validate()
            better = val_top1 > progress.best
            if better:
                self.keep()
        elapsed = time.monotonic() - started
        lr = self.peaks[-1] * _factor(progress.done(plan.steps), progress.total, plan.warmup)
        record = EpochRecord(
            progress.epoch,
            loss / seen,
            correct / seen,
            val_top1,
            lr,
            trained_before + elapsed,
            trained_before + train_s,
            plan.stage,
        )
        notice(
            f"  epoch {progress.epoch}/{epochs}  loss {record.train_loss:.4f}  train top-1 {record.train_top1:.4f}  "
            f"val top-1 {val_top1:.4f}  {record.seconds:.0f} s"
        )
        paused = time.monotonic()
        plan.after_epoch(record)
        if self.deadline is not None:
            self.deadline += time.monotonic() - paused
        following = replace(
            progress,
            epoch=progress.epoch + 1,
            batch=0,
            loss=0.0,
            correct=0,
            seen=0,
            train_s=0.0,
            best=max(progress.best, val_top1),
            stale=0 if better else progress.stale + 1,
            seconds=before + elapsed,
            records=[*progress.records, asdict(record)],
        )
        if progress.batch < plan.steps:
            # The budget's end was inside this epoch.
            following.epoch, following.batch, following.total = (
                progress.epoch,
                progress.batch,
                progress.done(plan.steps),
            )
        self.validation_s = elapsed - train_s
        self.progress = following
        if following.batch == 0:
            self._replan(train_s / (plan.steps - first_batch))
        self._save()

    def _planned(self) -> int:
        """Batches of this epoch."""
        return min(self.plan.steps, self.progress.total - (self.progress.epoch - 1) * self.plan.steps)

    def _step(self, batch: Batch) -> None:
        plan, progress = self.plan, self.progress
        if progress.batch % plan.accumulate == 0:
            self.optimizer.zero_grad(set_to_none=True)
            factor = _factor(progress.done(plan.steps), progress.total, plan.warmup)
            for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * factor
        loss, correct = self._forward(batch)
        # The last group of an epoch may be smaller.
        first = progress.batch - progress.batch % plan.accumulate
        self.scaler.scale(loss / min(plan.accumulate, plan.steps - first)).backward()  # type: ignore[no-untyped-call]
        progress.batch += 1
        if progress.batch % plan.accumulate == 0 or progress.batch == plan.steps:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.average.update()
        progress.loss += loss.item() * len(batch.labels)
        progress.correct += correct
        progress.seen += len(batch.labels)

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, int]:
        plan = self.plan
        inputs, labels = batch.inputs.to(self.device), batch.labels.to(self.device)
        mixed, targets = plan.mixer(inputs, labels) if self.progress.mixing else (inputs, labels)
        precise = plan.precision == torch.float32
        with contextlib.nullcontext() if precise else torch.autocast(self.device.type, plan.precision):
            output = self.trainee(mixed)
            logits = output[0] if plan.taught is not None else output
            loss = functional.cross_entropy(
                logits.float(), targets, weight=plan.class_weights, label_smoothing=plan.label_smoothing
            )
            if plan.taught is not None:
                lesson = plan.taught.loss(output[1], batch)
                loss = (1 - plan.taught_weight) * loss + plan.taught_weight * lesson
        # Of two pictures in one, the larger share counts.
        shown = targets.argmax(1) if targets.ndim == 2 else targets
        return loss, int((logits.argmax(1) == shown).sum())

    def _measure(self) -> float:
        """Seconds of a batch, and, noted, of a validation; leaves everything as it was."""
        plan = self.plan
        random = torch.get_rng_state()
        buffers = [buffer.clone() for buffer in self.trainee.buffers()]
        self.model.train()
        with contextlib.closing(plan.source(1, 0)) as batches:
            times = []
            for batch in _first(batches, 1 + _TIMED_STEPS):
                started = time.monotonic()
                loss, _ = self._forward(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                times.append(time.monotonic() - started)
        self.optimizer.zero_grad(set_to_none=True)
        # Statistics of a BatchNorm that learns.
        for buffer, value in zip(self.trainee.buffers(), buffers, strict=True):
            buffer.copy_(value)
        started = time.monotonic()
        plan.validate()
        self.validation_s = plan.processes.agree(time.monotonic() - started)
        torch.set_rng_state(random)
        # The first batch pays for warming up.
        return plan.processes.agree(statistics.median(times[1:] or times))

    def _replan(self, batch_s: float) -> None:
        """Plan as many batches as the budget's rest allows, the validations between and after them counted."""
        if self.deadline is None:
            return
        plan, progress = self.plan, self.progress
        left_s = plan.processes.agree(self.deadline - time.monotonic())
        here = plan.steps - progress.batch
        end_of_epoch_s, epoch_s = here * batch_s + self.validation_s, plan.steps * batch_s + self.validation_s
        if left_s < end_of_epoch_s:
            more = int((left_s - self.validation_s) / batch_s)
            # To begin an epoch for a few batches is not worth another validation.
            more = more if progress.batch or more >= plan.steps // 5 else 0
        else:
            epochs = int((left_s - end_of_epoch_s) // epoch_s)
            rest = int((left_s - end_of_epoch_s - epochs * epoch_s - self.validation_s) / batch_s)
            more = here + epochs * plan.steps + (rest if rest >= plan.steps // 5 else 0)
        progress.total = min(progress.done(plan.steps) + max(0, more), plan.epochs * plan.steps)

    def _totals(self) -> tuple[float, int, int]:
        """Loss, right answers and pictures of this epoch, over all processes."""
        progress = self.progress
        rows = self.plan.processes.gather([(progress.loss, progress.correct, progress.seen)])
        return sum(row[0] for row in rows), sum(row[1] for row in rows), max(1, sum(row[2] for row in rows))

    def _save(self) -> None:
        if self.plan.processes.is_main:
            state = {name: part.state_dict() for name, part in self._parts().items()}
            write_state(state | {"random": torch.get_rng_state(), "progress": asdict(self.progress)}, self.state_file)

    def _resume(self) -> bool:
        state = read_state(self.state_file)
        if state is None:
            return False
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        self.progress = _Progress(**state["progress"])
        if self.deadline is not None:
            self.deadline -= self.progress.seconds  # of the budget, which the interrupted process has used
        notice(f"  resuming in epoch {self.progress.epoch}, batch {self.progress.batch} of {self.plan.steps}")
        return True

    def _parts(self) -> dict[str, Any]:
        trained: Any = self.plan.taught if self.plan.taught is not None else self.model
        return {"model": trained, "optimizer": self.optimizer, "average": self.average, "scaler": self.scaler}


def _optimizer(plan: Plan) -> torch.optim.Optimizer:
    if plan.optimizer == "sgd":
        return torch.optim.SGD(plan.parameters, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay)
    return torch.optim.AdamW(plan.parameters, weight_decay=plan.weight_decay)


def _factor(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `total`."""
    ramp = max(1, round(warmup * total))
    if step < ramp:
        return (step + 1) / (ramp + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))


def _first(items: Generator[Batch, None, None], count: int) -> Generator[Batch, None, None]:
    for _ in range(count):
        item = next(items, None)
        if item is None:
            return
        yield item
