"""Gradient descent over epochs, with what can be resumed written after each."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from edgewright.runtime.console import notice, track
from edgewright.train.data.loading import Batch
from edgewright.train.distill import TaughtHead

__all__ = ["EpochRecord", "Plan", "fit"]


@dataclass(frozen=True)
class EpochRecord:
    """One row of metrics.csv."""

    epoch: int
    train_loss: float
    train_top1: float
    val_top1: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What :func:`fit` is to do.

    Attributes:
        epochs: Passes over the training split.
        steps: Batches in a pass.
        train_batches: epoch (from 1) -> batches of that epoch, and the row of the teacher's cache they show.
        validate: Top-1 on validation of the model in its present state.
        parameters: Parameter groups with their peak learning rates, for AdamW.
        teacher: Also learn what it says, with this weight against the labels' 1 - weight.
    """

    epochs: int
    steps: int
    train_batches: Callable[[int], tuple[Iterator[Batch], int]]
    validate: Callable[[], float]
    parameters: list[dict[str, Any]]
    weight_decay: float
    label_smoothing: float
    patience: int | None
    device: torch.device
    bf16: bool
    teacher: TaughtHead | None = None
    teacher_weight: float = 0.0


def fit(model: nn.Module, plan: Plan, folder: Path, keep: Callable[[], dict[str, torch.Tensor]]) -> list[EpochRecord]:
    """Train `model`, AdamW with a one-cycle schedule (Smith and Topin, 2017); leave the best epoch in `model`.

    Args:
        model: Batch inputs to logits.
        plan: See :class:`Plan`.
        folder: The run folder. `last/state.pt` (model, optimizer, schedule, random state) and `best.safetensors`
            are replaced after each epoch; a run that finds `last/` continues from it.
        keep: The tensors that `best.safetensors` holds.

    Returns:
        One record per epoch, those before an interruption included.
    """
    optimizer = torch.optim.AdamW(plan.parameters, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in plan.parameters],
        total_steps=plan.epochs * plan.steps + 1,
        pct_start=min(0.25, 2 / plan.epochs) if plan.epochs > 1 else 0.25,
    )
    checkpoint = _Checkpoint(folder, model, optimizer, schedule, plan.teacher)
    records = checkpoint.load()
    best = max((record.val_top1 for record in records), default=-1.0)
    stale = 0
    for record in records:
        stale = 0 if record.val_top1 >= best else stale + 1
    for epoch in range(len(records) + 1, plan.epochs + 1):
        if plan.patience is not None and stale >= plan.patience:
            notice(f"stopped early: no better validation for {stale} epochs (patience {plan.patience})")
            break
        started = time.perf_counter()
        loss, top1 = _one_epoch(model, plan, epoch, optimizer, schedule)
        val_top1 = plan.validate()
        seconds = time.perf_counter() - started
        record = EpochRecord(epoch, loss, top1, val_top1, float(schedule.get_last_lr()[-1]), seconds)
        records.append(record)
        notice(
            f"epoch {epoch}/{plan.epochs}  loss {loss:.4f}  train top-1 {top1:.4f}  val top-1 {val_top1:.4f}  {seconds:.0f} s"
        )
        if val_top1 > best:
            best, stale = val_top1, 0
            _save_tensors(keep(), folder / "best.safetensors")
        else:
            stale += 1
        checkpoint.save(records)
    return records


def _one_epoch(
    model: nn.Module,
    plan: Plan,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[float, float]:
    model.train()
    source, row = plan.train_batches(epoch)
    total_loss, correct, seen = 0.0, 0, 0
    for batch in track(source, f"epoch {epoch}/{plan.epochs}", plan.steps):
        inputs, labels = batch.inputs.to(plan.device), batch.labels.to(plan.device)
        precision = torch.autocast(plan.device.type, torch.bfloat16) if plan.bf16 else contextlib.nullcontext()
        with precision:
            logits = model(inputs)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=plan.label_smoothing)
            if plan.teacher is not None:
                taught = plan.teacher.loss(row, batch.indices)
                loss = (1 - plan.teacher_weight) * loss + plan.teacher_weight * taught
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total_loss += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return total_loss / seen, correct / seen


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    _into_place(temporary, path)


def _into_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


class _Checkpoint:
    """Everything to go on from the last finished epoch. Augmentation needs nothing: it follows from (seed, epoch)."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        teacher: TaughtHead | None,
    ) -> None:
        self._path = folder / "last" / "state.pt"
        self._parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
        if teacher is not None:
            self._parts["taught_head"] = teacher.linear

    def load(self) -> list[EpochRecord]:
        """Restore the parts; returns the records so far, none if there is nothing to resume."""
        if not self._path.is_file():
            return []
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        records = [EpochRecord(**record) for record in state["records"]]
        notice(f"resuming after epoch {len(records)}")
        return records

    def save(self, records: list[EpochRecord]) -> None:
        """Write the state of now in place of the state of the epoch before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        state = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save(
            state | {"random": torch.get_rng_state(), "records": [asdict(record) for record in records]}, temporary
        )
        _into_place(temporary, self._path)
