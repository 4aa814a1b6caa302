"""The ways of transfer learning: which part of the network learns, and what it is shown.

| strategy  | learns                     | is shown                                                        |
|-----------|----------------------------|-----------------------------------------------------------------|
| `head`    | the last linear layer      | features of the frozen rest, computed once                      |
| `partial` | the stages from a cut on   | activations at the cut for a few augmented views, computed once |
| `full`    | everything                 | fresh augmentations                                             |
| `scratch` | everything, from random    | fresh augmentations                                             |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, head_of, plan_stages, split_at
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.config import TrainConfig
from edgewright.train.data import ImageData
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Batch, Renderer, batches, epoch_order
from edgewright.train.depthwise import speed_up_depthwise
from edgewright.train.distill import TaughtHead, teacher_logits
from edgewright.train.evaluation import SplitResult, clean_renderer, predict_split
from edgewright.train.features import ActivationCache, compile_frozen
from edgewright.train.head import fit_head
from edgewright.train.loop import EpochRecord, Plan, fit

__all__ = ["Job", "Outcome", "run_strategy"]

_HEAD_LR = 3e-3
_BODY_LR = 3e-4


@dataclass(frozen=True)
class Job:
    """What a strategy works on. `network` has a fresh head for the data's classes; `folder` is the run's."""

    config: TrainConfig
    data: ImageData
    network: Network
    spec: Preprocess
    device: torch.device
    folder: Path

    def renderer(self) -> Renderer:
        """The training split; view 0 clean, others augmented."""
        config, data = self.config, self.data
        mirror = data.mirrored if config.mirror is None else config.mirror
        how = Augmentation(config.crop_scale, mirror, config.color_jitter)
        return Renderer(data.splits["train"], self.spec, how, config.seed)


@dataclass(frozen=True)
class Outcome:
    """What came out; the trained weights are in the job's network."""

    records: tuple[EpochRecord, ...]
    results: dict[str, SplitResult]
    note: str


def run_strategy(job: Job) -> Outcome:
    """Train as `job.config.strategy` says."""
    if job.config.strategy == "head":
        return _head(job)
    if job.config.strategy == "partial":
        return _partial(job)
    return _everything(job)


def _stages(network: Network, spec: Preprocess) -> StagePlan:
    return plan_stages(network, torch.zeros(1, spec.crop, spec.crop, 3, dtype=torch.uint8))


def _head(job: Job) -> Outcome:
    plan = _stages(job.network, job.spec)
    frozen, _ = split_at(plan, plan.cuts[-1])
    compiled = compile_frozen(frozen, job.spec.crop)
    features: dict[str, torch.Tensor] = {}
    labels: dict[str, torch.Tensor] = {}
    for split, samples in job.data.splits.items():
        if samples:
            cache = ActivationCache(plan.shapes[-1], len(samples), 1, np.float32, job.folder / "cache")
            cache.fill(compiled, clean_renderer(samples, job.spec), [0], f"features, {split}")
            features[split] = torch.from_numpy(np.array(cache.values[0]))
            labels[split] = torch.tensor([sample.label for sample in samples])
            cache.close()
    fitted = fit_head((features["train"], labels["train"]), (features["val"], labels["val"]), len(job.data.classes))
    _, head = head_of(job.network)
    with torch.no_grad():
        head.weight.copy_(fitted.weight)
        head.bias.copy_(fitted.bias)
        results = {
            split: SplitResult(head(values).numpy(), labels[split].numpy())
            for split, values in features.items()
            if split != "train"
        }
    records = tuple(
        EpochRecord(number, loss, train_top1, val_top1, penalty, 0.0)
        for number, (penalty, train_top1, val_top1, loss) in enumerate(fitted.tried, start=1)
    )
    return Outcome(
        records, results, f"logistic regression on {head.in_features} features, L2 penalty {fitted.penalty:g}"
    )


def _partial(job: Job) -> Outcome:
    config = job.config
    plan = _stages(job.network, job.spec)
    stages = len(plan.cuts)
    freeze = config.freeze if config.freeze is not None else max(1, stages - 3)
    if freeze >= stages:
        raise UsageError(
            f"--freeze {freeze}: '{config.backbone}' has {stages} stages; freeze 1 to {stages - 1} of them."
        )
    frozen, tail = split_at(plan, plan.cuts[freeze - 1])
    compiled = compile_frozen(frozen, job.spec.crop)
    renderer = job.renderer()
    views = list(range(config.views))
    shape, folder = plan.shapes[freeze - 1], job.folder / "cache"
    cache = ActivationCache(shape, len(renderer.samples), len(views), np.float16, folder)
    cache.fill(compiled, renderer, views, "activations, train")
    evaluation: dict[str, ActivationCache] = {}
    for split in ("val", "test"):
        if samples := job.data.splits[split]:
            # Validation in float32: it must see what the exported network computes.
            evaluation[split] = ActivationCache(shape, len(samples), 1, np.float32, folder)
            evaluation[split].fill(compiled, clean_renderer(samples, job.spec), [0], f"activations, {split}")

    def result(split: str) -> SplitResult:
        samples = job.data.splits[split]
        return _predict_cached(tail, evaluation[split].values[0], [sample.label for sample in samples], job.device)

    def train_batches(epoch: int) -> tuple[Iterator[Batch], int]:
        row = (epoch - 1) % len(views)
        return _cached_batches(cache.values[row], renderer, epoch, config), row

    _prepare_for_training(tail)
    tail.to(job.device)
    trained = {id(parameter) for parameter in tail.parameters()}
    records = _fit(job, tail, train_batches, lambda: result("val").top1, trained)
    _restore_best(job)
    results = {split: result(split) for split in evaluation}
    for used in (cache, *evaluation.values()):
        used.close()
    return Outcome(tuple(records), results, f"{freeze} of {stages} stages frozen, {config.views} cached views")


def _everything(job: Job) -> Outcome:
    config = job.config
    renderer = job.renderer()
    teacher = _teacher(job, renderer) if config.teacher else None

    def train_batches(epoch: int) -> tuple[Iterator[Batch], int]:
        row = (epoch - 1) % config.views if teacher is not None else epoch - 1
        order = epoch_order(len(renderer.samples), config.seed, epoch)
        threads = config.workers or available_cores()
        return batches(
            renderer, order, view=row + 1, batch=config.batch, threads=threads, drop_last=_drop_last(job)
        ), row

    def result(split: str, description: str | None = None) -> SplitResult:
        return predict_split(job.network, job.data.splits[split], job.spec, job.device, description)

    _prepare_for_training(job.network)
    job.network.to(job.device)
    everything = {id(parameter) for parameter in job.network.parameters()}
    records = _fit(job, job.network, train_batches, lambda: result("val").top1, everything, teacher)
    _restore_best(job)
    results = {split: result(split, f"evaluating {split}") for split in ("val", "test") if job.data.splits[split]}
    if teacher is not None:
        teacher.close()
    note = f"taught by {config.teacher}" if config.teacher else "every layer trained"
    return Outcome(tuple(records), results, note)


def _prepare_for_training(model: nn.Module) -> None:
    """Make depthwise convolutions fast, and let BatchNorm's running statistics follow within tens of steps.

    MobileNetV3 is built with a momentum of 0.01, made for the millions of steps of ImageNet. A small dataset has fifty
    steps in an epoch, after which evaluation would still normalise with statistics of the beginning.
    """
    speed_up_depthwise(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)


def _teacher(job: Job, renderer: Renderer) -> TaughtHead:
    config = job.config
    assert config.teacher is not None
    pretrained = load_pretrained(config.teacher, config.teacher_weights)
    if not pretrained.classes:
        raise UsageError(
            f"The teacher '{config.teacher}' with weights '{config.teacher_weights}' has no classes to teach. "
            "Use --teacher-weights imagenet, a file with ImageNet's 1000 classes, or a run folder."
        )
    theirs = preprocess_for(config.teacher, config.teacher_weights, config.teacher_imgsz, False)
    views = list(range(1, config.views + 1))
    notice(f"teacher: {config.teacher} ({pretrained.source}) at {theirs.crop} px, {config.views} cached views")
    classes = len(pretrained.classes)
    cache = teacher_logits(pretrained.model, classes, theirs, renderer, views, job.folder / "cache")
    return TaughtHead(cache, job.network).to(job.device)


def _drop_last(job: Job) -> bool:
    # A last batch of one picture has no variance for BatchNorm.
    return len(job.data.splits["train"]) % job.config.batch == 1


def _fit(
    job: Job,
    model: nn.Module,
    train_batches: Callable[[int], tuple[Iterator[Batch], int]],
    validate: Callable[[], float],
    trained: set[int],
    teacher: TaughtHead | None = None,
) -> list[EpochRecord]:
    config = job.config
    count = len(job.data.splits["train"])
    plan = Plan(
        epochs=config.epochs,
        steps=count // config.batch if _drop_last(job) else -(-count // config.batch),
        train_batches=train_batches,
        validate=validate,
        parameters=_parameter_groups(job, trained, teacher),
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        patience=config.patience,
        device=job.device,
        bf16=config.precision == "bf16",
        teacher=teacher,
        teacher_weight=config.distill_weight,
    )
    return fit(model, plan, job.folder, keep=job.network.backbone.state_dict)


def _parameter_groups(job: Job, trained: set[int], teacher: TaughtHead | None) -> list[dict[str, Any]]:
    """The pretrained body learns slower than the fresh head; biases and normalisation are not decayed."""
    config = job.config
    _, head = head_of(job.network)
    fresh = {id(parameter) for parameter in head.parameters()}
    head_lr = config.lr if config.lr is not None else _HEAD_LR
    body_lr = head_lr if config.strategy == "scratch" else head_lr * (_BODY_LR / _HEAD_LR)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    parameters = [parameter for parameter in job.network.parameters() if id(parameter) in trained]
    for parameter in [*parameters, *(teacher.linear.parameters() if teacher else ())]:
        is_head = id(parameter) in fresh or id(parameter) not in trained
        groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "lr": head_lr if is_head else body_lr} | ({} if decays else {"weight_decay": 0.0})
        for (is_head, decays), members in groups.items()
    ]


def _restore_best(job: Job) -> None:
    job.network.backbone.load_state_dict(load_file(job.folder / "best.safetensors"))
    job.network.to(job.device)


def _cached_batches(values: npt.NDArray[Any], renderer: Renderer, epoch: int, config: TrainConfig) -> Iterator[Batch]:
    labels = torch.tensor([sample.label for sample in renderer.samples])
    order = torch.tensor(epoch_order(len(labels), config.seed, epoch))
    for indices in torch.split(order, config.batch):
        if len(indices) == 1 and len(order) > 1:
            return
        # Sorted rows read the file forwards; the order inside a batch does not matter.
        rows = indices.sort().values
        yield Batch(torch.from_numpy(values[rows.numpy()].astype(np.float32)), labels[rows], rows)


def _predict_cached(tail: nn.Module, values: npt.NDArray[Any], labels: list[int], device: torch.device) -> SplitResult:
    tail.eval()
    with torch.inference_mode():
        parts = [
            tail(torch.from_numpy(np.array(values[start : start + 64])).to(device)).float().cpu().numpy()
            for start in range(0, len(values), 64)
        ]
    return SplitResult(np.concatenate(parts), np.asarray(labels, dtype=np.int64))
