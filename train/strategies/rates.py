"""How fast each part of a network learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import head_of, stage_parameters
from edgewright.train.distill import Taught
from edgewright.train.strategies.job import Job

__all__ = ["parameter_groups", "stage_names", "weight_decay"]

_LR = {"adamw": (4e-4, 3e-3), "sgd": (1e-2, 1e-1)}
"""Peak learning rate of a pretrained network, and of one from random."""

_LAYER_DECAY = 0.8
"""Learning rate of a stage over that of the stage above it: earlier layers are more general (Howard and Ruder, 2018)."""

_WEIGHT_DECAY = {"adamw": 0.02, "sgd": 1e-4}


def weight_decay(job: Job) -> float:
    """The configured one, or the optimizer's usual one."""
    configured = job.config.weight_decay
    return configured if configured is not None else _WEIGHT_DECAY[job.config.optimizer]


def stage_names(job: Job) -> list[list[str]]:
    """Names of the parameters of every stage, from the input on; the last entry is the head."""
    try:
        return stage_parameters(job.network, job.stages)
    except UsageError:
        # A network that cannot be cut is one stage.
        prefix = f"{head_of(job.network)[0]}."
        names = [name for name, _ in job.network.named_parameters()]
        return [[n for n in names if not n.startswith(prefix)], [n for n in names if n.startswith(prefix)]]


def parameter_groups(job: Job, model: nn.Module, taught: Taught | None, gentle: float) -> list[dict[str, Any]]:
    """Earlier stages learn slower; biases and normalisation are not decayed. `gentle` is a factor for all rates."""
    config = job.config
    pretrained = job.pretrained
    peak = gentle * (config.lr if config.lr is not None else _LR[config.optimizer][0 if pretrained else 1])
    factor = config.layer_decay if config.layer_decay is not None else _LAYER_DECAY if pretrained else 1.0
    trained = {id(parameter) for parameter in model.parameters()}
    named = dict(job.network.named_parameters())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for above, names in enumerate(reversed(stage_names(job))):
        # The head and the stage below it share the peak.
        rate = peak * factor ** max(0, above - 1)
        for parameter in (named[name] for name in names if id(named[name]) in trained):
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    if taught is not None and taught.second is not None:
        for parameter in taught.second.parameters():
            groups.setdefault((_LR[config.optimizer][1], parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "lr": rate} | ({} if decays else {"weight_decay": 0.0})
        for (rate, decays), members in sorted(groups.items(), key=lambda item: item[0])
    ]
