"""Gradient descent on the network from a cut on, or on all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import split_at
from edgewright.train.data.loading import Batch, Renderer, batches, epoch_order
from edgewright.train.depthwise import speed_up_depthwise
from edgewright.train.evaluation import SplitResult, clean_renderer, predict_cached, predict_split
from edgewright.train.features import ActivationCache, compile_frozen
from edgewright.train.loop import EpochRecord, Plan, fit
from edgewright.train.mixing import Mixer
from edgewright.train.strategies.balance import class_weights
from edgewright.train.strategies.head import solve_head
from edgewright.train.strategies.job import Job, Outcome
from edgewright.train.strategies.rates import parameter_groups, stage_names, weight_decay
from edgewright.train.strategies.teaching import taught_by

__all__ = ["Tuned", "closing_seconds", "evaluate", "mixing", "train_tuned", "tune"]

_MIXUP = 0.2
"""Alpha of Zhang et al., "mixup" (2018), for ImageNet."""

_MIXED_EPOCHS, _MIXED_BATCHES = 5, 480
"""From how many on pictures are mixed: before that it holds up what is learnt. Clothing, MobileNetV2, 96 batches an epoch:
after 9 epochs test top-1 0.938 and 0.935 with it, 0.919 and 0.930 without; after two, validation 0.880 with it, 0.900
without. 300 digits, SqueezeNet, 6 epochs of 19 batches: validation 0.83 with it, 0.90 without.
"""

_REPORT_S = 5.0
"""Kept back of a budget for pictures and report."""


@dataclass(frozen=True)
class Tuned:
    """What :func:`tune` did; the best weights are in the job's network. `val` is what they make of validation."""

    records: list[EpochRecord]
    val: SplitResult


def train_tuned(job: Job, trained_stages: int | None) -> Outcome:
    """Strategies `partial`, `full` and `scratch`: from a solved head where the network is pretrained.

    Starting from a head that fits, the body is not pulled about by a random one in the first steps (Kumar et al.,
    "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", 2022).

    Args:
        job: What to train.
        trained_stages: Counted from the head; None for everything.
    """
    start = job.folder / "last" / "start.safetensors"
    # Agreed on before the first process writes it: none may take it for what an interrupted run left.
    if not job.processes.agree(start.is_file()):
        _solve_or_not(job, start)
    job.load_weights(start)
    deadline = None if job.deadline is None else job.deadline - closing_seconds(job)
    tuned = tune(job, trained_stages, name="tune", epochs=job.epochs, deadline=deadline)
    if tuned is None:
        raise UsageError(f"--budget {job.config.budget:g}s is too short for a fifth of an epoch. Give more time.")
    total = len(stage_names(job)) - 1
    if trained_stages is None:
        note = "every layer trained"
    else:
        note = f"{total - trained_stages} of {total} stages frozen, {job.config.views} cached views"
    if job.config.teacher:
        note += f", taught by {job.config.teacher}"
    return Outcome(
        tuple(tuned.records),
        evaluate(job, tuned.val),
        note,
        total if trained_stages is None else trained_stages,
        total,
    )


def _solve_or_not(job: Job, start: Path) -> None:
    """Write the network to start from: with a solved head, or, where there is nothing to solve it on, a fresh one."""
    if job.pretrained:
        try:
            solve_head(job, start)
        except UsageError as error:
            notice(f"training starts from a fresh head: {error}")
        else:
            return
    job.save_weights(start)


def evaluate(job: Job, val: SplitResult) -> dict[str, SplitResult]:
    """`val`, and what the network makes of test if there is one."""
    results = {"val": val}
    if samples := job.data.splits["test"]:
        job.network.to(job.processes.device)
        results["test"] = predict_split(job.network, samples, job.spec, job.processes, "evaluating test")
    return results


def closing_seconds(job: Job) -> float:
    """How long the evaluations and the report after training will take, measured on a few pictures."""
    samples = job.data.splits["val"][:32]
    job.network.to(job.processes.device)
    predict_split(job.network, samples[:8], job.spec, job.processes, None)
    times = []
    # Twice, the faster: what else the machine did just then is not the network's.
    for _ in range(2):
        started = time.monotonic()
        predict_split(job.network, samples, job.spec, job.processes, None)
        times.append(time.monotonic() - started)
    per_picture = min(times) / len(samples)
    pictures = len(job.data.splits["val"]) + len(job.data.splits["test"])
    return job.processes.agree(_REPORT_S + per_picture * pictures)


def tune(
    job: Job, trained_stages: int | None, *, name: str, epochs: int, deadline: float | None, gentle: float = 1.0
) -> Tuned | None:
    """Train the upper `trained_stages` stages and the head, or everything.

    Args:
        job: Its network holds the weights to start from.
        trained_stages: Counted from the head; None for everything.
        name: Of the attempt; its state and its best weights have this name in `last/` until the run is finished.
        epochs: At most.
        deadline: `time.monotonic()` at which training is to be over.
        gentle: Factor of all learning rates.

    Returns:
        None if the deadline leaves no time.
    """
    config = job.config
    torch.manual_seed(config.seed)
    stage_names(job)  # traces the network, which must be before its convolutions are replaced
    setting = _whole(job) if trained_stages is None else _tail(job, trained_stages)
    best = job.folder / "last" / f"{name}.safetensors"
    labels = job.labels("train")
    groups = _global_batches(job, len(labels))
    taught = taught_by(job, setting.model, setting.renderer) if config.teacher else None
    cached_views = config.views if taught is not None or trained_stages is not None else None
    mixer, mixed_from = mixing(job, trained_stages, len(groups))

    def source(epoch: int, first: int) -> Generator[Batch, None, None]:
        row = (epoch - 1) % cached_views if cached_views else epoch - 1
        if taught is not None:
            taught.prepare(row)
        order = epoch_order(labels, config.seed, epoch, balanced=config.balance == "sampler")
        parts = [order[part] for part in groups[first:]]
        processes = job.processes
        mine = [part[processes.rank :: processes.world] for part in parts]
        return setting.source(mine, row)

    _prepare_for_training(setting.model, solved_head=job.pretrained)
    setting.model.to(job.processes.device)
    weights = class_weights(job).to(job.processes.device) if config.balance == "loss" else None
    plan = Plan(
        epochs=epochs,
        steps=len(groups),
        source=source,
        validate=lambda: setting.validate().top1,
        parameters=parameter_groups(job, setting.model, taught, gentle),
        optimizer=config.optimizer,
        weight_decay=weight_decay(job),
        warmup=config.warmup,
        label_smoothing=config.label_smoothing,
        accumulate=config.accumulate,
        average=config.ema,
        mixer=mixer,
        mixed_from=mixed_from,
        class_weights=weights,
        patience=config.patience,
        precision=job.precision,
        processes=job.processes,
        checkpoint_s=config.checkpoint_s,
        deadline=deadline,
        after_epoch=job.after_epoch,
        taught=taught,
        taught_weight=config.distill_weight,
        stage=name,
    )
    records = fit(setting.model, plan, best.with_suffix(".pt"), keep=lambda: job.save_weights(best))
    if records:
        job.load_weights(best)
    val = setting.validate()
    setting.close()
    if taught is not None:
        taught.close()
    return Tuned(records, val) if records else None


def mixing(job: Job, trained_stages: int | None, steps: int) -> tuple[Mixer, int]:
    """How pictures are mixed, and from how many planned batches on, where an epoch has `steps`.

    A pretrained network that learns as a whole knows a few thousand pictures by heart after some epochs: it is shown
    mixed ones unless the configuration says otherwise.
    """
    config, classes = job.config, len(job.data.classes)
    learns_as_a_whole = job.pretrained and trained_stages is None and config.teacher is None
    if learns_as_a_whole and config.mixup is None and not config.cutmix:
        return Mixer(_MIXUP, 0.0, classes), max(_MIXED_EPOCHS * steps, _MIXED_BATCHES)
    return Mixer(config.mixup or 0.0, config.cutmix, classes), 0


@dataclass(frozen=True)
class _Setting:
    """The trained part of a network and what it is shown: the whole with pictures, or a tail with activations."""

    model: nn.Module
    renderer: Renderer
    source: Callable[[list[npt.NDArray[np.int64]], int], Generator[Batch, None, None]]
    validate: Callable[[], SplitResult]
    close: Callable[[], None]


def _whole(job: Job) -> _Setting:
    renderer = job.renderer()

    def source(parts: list[npt.NDArray[np.int64]], row: int) -> Generator[Batch, None, None]:
        order = np.concatenate(parts)
        threads = job.config.workers
        return batches(renderer, order, view=row + 1, batch=len(parts[0]), threads=threads, view_row=row)

    def validate() -> SplitResult:
        return predict_split(job.network, job.data.splits["val"], job.spec, job.processes, None)

    return _Setting(job.network, renderer, source, validate, lambda: None)


def _tail(job: Job, trained_stages: int) -> _Setting:
    job.network.to("cpu")
    plan = job.stages
    cut = plan.cuts[len(plan.cuts) - 1 - trained_stages]
    frozen, tail = split_at(plan, cut)
    # Activations of training pictures have the size of training; its shape is asked of the frozen part itself.
    renderer = job.renderer()
    labels = job.labels("train")
    compiled = compile_frozen(frozen, job.train_size, job.processes.device)
    views = list(range(1, job.config.views + 1))
    cache = ActivationCache(_shape(frozen, job.train_size), renderer, views, np.float16, job.cache)
    # Validation in float32: it must see what the exported network computes.
    clean = ActivationCache(
        _shape(frozen, job.spec.crop), clean_renderer(job.data.splits["val"], job.spec), [0], np.float32, job.cache
    )
    clean.ensure(0, compile_frozen(frozen, job.spec.crop, job.processes.device), "  activations, val")

    def source(parts: list[npt.NDArray[np.int64]], row: int) -> Generator[Batch, None, None]:
        cache.ensure(row, compiled, "  activations, train")
        for part in parts:
            # Sorted rows read the file forwards; the order inside a batch does not matter.
            rows = np.sort(part)
            values = torch.from_numpy(cache.read(row, rows).astype(np.float32))
            yield Batch(values, torch.from_numpy(labels[rows]), torch.from_numpy(rows), row)
            cache.release()

    def close() -> None:
        cache.close()
        clean.close()

    return _Setting(
        tail, renderer, source, lambda: predict_cached(tail, clean, job.labels("val").tolist(), job.processes), close
    )


def _shape(frozen: nn.Module, size: int) -> tuple[int, ...]:
    """Of one picture's activation."""
    frozen.eval()
    with torch.inference_mode():
        return tuple(frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:])


def _global_batches(job: Job, count: int) -> list[slice]:
    """The batches of an epoch, as slices of its order; each is shared by all processes."""
    batch, world = job.config.batch, job.processes.world
    if batch % world:
        raise UsageError(f"--batch {batch} cannot be shared evenly by {world} processes. Use a multiple of {world}.")
    parts = [slice(start, min(start + batch, count)) for start in range(0, count, batch)]
    # A last batch of one picture has no variance for BatchNorm, and every process needs a picture.
    smallest = max(2, world)
    if len(parts) > 1 and parts[-1].stop - parts[-1].start < smallest:
        parts.pop()
    return parts


def _prepare_for_training(model: nn.Module, *, solved_head: bool) -> None:
    """Make depthwise convolutions fast, let a BatchNorm that learns follow within tens of steps, and drop nothing out
    before a solved head.

    A head solved for on whole features balances large weights against each other; with a fifth of the features gone its
    answers are noise, and the first epochs would be spent on unlearning it.

    MobileNetV3 is built with a momentum of 0.01, made for the millions of steps of ImageNet. A small dataset has fifty
    steps in an epoch, after which evaluation would still normalise with statistics of the beginning.
    """
    speed_up_depthwise(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)
        if solved_head and isinstance(module, nn.Dropout):
            module.p = 0.0
    # Convolutions are faster so, forwards and backwards.
    model.to(memory_format=torch.channels_last)
