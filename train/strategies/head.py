"""The head alone, on features that the compiled rest computes once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edgewright.train.backbones.surgery import head_of, split_at
from edgewright.train.evaluation import SplitResult, clean_renderer
from edgewright.train.features import ActivationCache, compile_frozen
from edgewright.train.head import Features, HeadFit, fit_head
from edgewright.train.loop import EpochRecord
from edgewright.train.strategies.balance import class_weights
from edgewright.train.strategies.job import Job, Outcome
from edgewright.train.temperature import calibrate

__all__ = ["solve_head", "train_head"]


def train_head(job: Job) -> Outcome:
    """Strategy `head`."""
    fitted, results, records = solve_head(job)
    _, head = head_of(job.network)
    note = f"logistic regression on {head.in_features} features, L2 penalty {fitted.penalty:g}"
    return Outcome(records, results, note, 0, len(job.stages.cuts))


def solve_head(job: Job, start: Path | None = None) -> tuple[HeadFit, dict[str, SplitResult], tuple[EpochRecord, ...]]:
    """Fit the head of the job's network, in place, scores calibrated. Every process does the same, and finds the same.

    Args:
        job: What to train.
        start: Where to write the network with a head that is fit to train on from.

    Returns:
        The fit; what the network then makes of validation and test; one record per penalty (its `lr` is the penalty).
    """
    plan = job.stages
    frozen, _ = split_at(plan, plan.cuts[-1])
    compiled = compile_frozen(frozen, job.spec.crop, job.processes.device)
    caches: dict[str, ActivationCache] = {}
    features: dict[str, Features] = {}
    for split, samples in job.data.splits.items():
        if samples:
            cache = ActivationCache(plan.shapes[-1], clean_renderer(samples, job.spec), [0], np.float32, job.cache)
            cache.ensure(0, compiled, f"features, {split}")
            caches[split] = cache
            features[split] = Features(_reader(cache), torch.from_numpy(job.labels(split)))
    weights = None if job.config.balance == "none" else class_weights(job)
    fitted = fit_head(features["train"], features["val"], len(job.data.classes), weights)
    results = _set_head(job, features, (fitted.weight, fitted.bias))
    if start is not None:
        _set_head(job, features, fitted.start)
        job.save_weights(start)
        results = _set_head(job, features, (fitted.weight, fitted.bias))
    for cache in caches.values():
        cache.close()
    records = tuple(
        EpochRecord(number, loss, train_top1, val_top1, penalty, 0.0, stage="head")
        for number, (penalty, train_top1, val_top1, loss) in enumerate(fitted.tried, start=1)
    )
    return fitted, results, records


def _set_head(
    job: Job, features: dict[str, Features], solution: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, SplitResult]:
    """Put a solution into the network, calibrated, and say what it makes of validation and test."""
    _, head = head_of(job.network)
    with torch.no_grad():
        head.weight.copy_(solution[0])
        head.bias.copy_(solution[1])
        results = {
            split: SplitResult(
                np.concatenate([head(values).numpy() for values, _ in features[split].chunks()]), job.labels(split)
            )
            for split in features
            if split != "train"
        }
    # A head that claims certainty would pull at the body for every picture that it gets wrong.
    return calibrate(job.network, results)[1]


def _reader(cache: ActivationCache) -> Callable[[slice], torch.Tensor]:
    def read(rows: slice) -> torch.Tensor:
        values = torch.from_numpy(cache.read(0, rows))
        cache.release()
        return values

    return read
