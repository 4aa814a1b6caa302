"""How fast each part of a network learns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

import torch
from torch import nn

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import head_of, stage_parameters
from edgewright.train.distill import Taught
from edgewright.train.strategies.job import Job

__all__ = ["parameter_groups", "restraint", "stage_names", "weight_decay"]

_LR = {"adamw": (4e-4, 3e-3), "sgd": (1e-2, 1e-1)}
"""Peak learning rate of a pretrained network, and of one from random."""

_LAYER_DECAY = 0.8
"""Learning rate of a stage over that of the stage above it: earlier layers are more general (Howard and Ruder, 2018)."""

_TURN = 0.18
"""How far one step of AdamW may turn the output of a pretrained layer, about, for the layer in the middle: sqrt(inputs) *
rate / RMS of its weights.

AdamW moves every weight by about the rate, whatever its size. A layer that sums over many inputs with small weights
(ResNet's 3 x 3 x 512) is turned into another one by steps that a depthwise layer hardly feels, and nothing behind it
normalises that away while BatchNorm is fixed; rates that fall with the number of inputs are those of Yang et al., "Tensor
Programs V" (2022). At the default rate the layers in the middle of MobileNets and SqueezeNet turn by 0.02 to 0.06, that of
ResNet-18 by 0.7: it diverged. One factor for all layers gave better accuracy than one for each.
"""

_WEIGHT_DECAY = {"adamw": 0.02, "sgd": 1e-4}


def weight_decay(job: Job) -> float:
    """The configured one, or the optimizer's usual one."""
    configured = job.config.weight_decay
    return configured if configured is not None else _WEIGHT_DECAY[job.config.optimizer]


def restraint(weights: Iterable[torch.Tensor], rate: float) -> float:
    """What `rate` is to be multiplied by, at most 1, for a network with these weights (outputs, inputs, ...)."""
    sizes = [(weight.detach().float().square().mean().sqrt().item(), weight[0].numel()) for weight in weights]
    turns = [math.sqrt(inputs) * rate / size for size, inputs in sizes if size > 0]
    return min(1.0, _TURN / median(turns)) if turns else 1.0


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
    named = dict(job.network.named_parameters())
    peak = config.lr if config.lr is not None else _LR[config.optimizer][0 if pretrained else 1]
    if pretrained and config.optimizer == "adamw" and config.lr is None:
        head = f"{head_of(job.network)[0]}."
        peak *= restraint((p for n, p in named.items() if p.ndim > 1 and not n.startswith(head)), peak)
    factor = config.layer_decay if config.layer_decay is not None else _LAYER_DECAY if pretrained else 1.0
    trained = {id(parameter) for parameter in model.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for above, names in enumerate(reversed(stage_names(job))):
        # The head and the stage below it share the peak.
        rate = gentle * peak * factor ** max(0, above - 1)
        for parameter in (named[name] for name in names if id(named[name]) in trained):
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    if taught is not None and taught.second is not None:
        for parameter in taught.second.parameters():
            groups.setdefault((_LR[config.optimizer][1], parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "lr": rate} | ({} if decays else {"weight_decay": 0.0})
        for (rate, decays), members in sorted(groups.items(), key=lambda item: item[0])
    ]
