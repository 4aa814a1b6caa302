"""A network laid out: its layers by stage, with shapes, parameters, multiplications, and what is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.catalogue import IMAGENET_CLASSES, build_empty, require_backbone
from edgewright.train.backbones.layers import Layer, read_layers
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, plan_stages, replace_head, stage_parameters
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.run import read_run

__all__ = ["Stage", "Summary", "summarise"]

_PREFIX = "backbone."


@dataclass(frozen=True)
class Stage:
    """Layers between two cuts.

    Attributes:
        number: From 1 at the input; None for the layers of a network that cannot be divided.
        output: Shape at the cut, for one image without the batch axis.
        head: Is it what follows the last cut?
    """

    number: int | None
    output: tuple[int, ...] | None
    head: bool
    frozen: bool
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Of all its layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Of all its layers, for one image."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class Summary:
    """A network. `cuts` is the number of stages that `--freeze` counts, or 0 if the network cannot be divided."""

    backbone: str
    weights: str
    classes: int
    input_px: int
    cuts: int
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        """All."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def trainable(self) -> int:
        """Those that are not frozen."""
        return sum(stage.parameters for stage in self.stages if not stage.frozen)

    @property
    def gmacs(self) -> float:
        """10^9 multiply-accumulate operations for one image."""
        return sum(stage.macs for stage in self.stages) / 1e9


def summarise(
    model: str,
    weights: str | None = None,
    imgsz: int | None = None,
    freeze: int | None = None,
    classes: int | None = None,
) -> Summary:
    """Lay out a backbone or a run's network; weights are read only where `weights` is a file or a folder.

    Args:
        model: Name of a backbone, or a run folder.
        weights: As for training; decides the input size and, for a path, the number of classes. Not for a run.
        imgsz: Input size instead of that of the weights or the run.
        freeze: Stages that are frozen, from the input; None for what the run froze, or nothing.
        classes: A fresh head for so many classes.

    Raises:
        UsageError: unknown name, a size that the network cannot compute, or more frozen stages than there are.
        WeightsError: not a finished run, or weights that cannot be read.
    """
    record = read_run(Path(model)).record if Path(model).is_dir() else None
    if record is not None and weights is not None:
        raise UsageError("--weights belongs to a backbone; a run has its own.")
    if record is not None:
        backbone, said, spec, outputs = record.backbone, record.weights, record.preprocess, len(record.classes)
    else:
        require_backbone(model)
        backbone, said, outputs = model, weights or "none", IMAGENET_CLASSES
        spec = preprocess_for(model, said, None, False)
        if weights not in (None, "none", "imagenet", "builtin"):
            outputs = len(load_pretrained(model, said).classes) or outputs
    empty = build_empty(backbone)
    if outputs != IMAGENET_CLASSES or classes is not None:
        replace_head(empty, classes or outputs)
    size = imgsz or spec.crop
    network = Network(empty, spec.model_copy(update={"crop": size, "resize": size})).to("meta").eval()
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8, device="meta")
    layers = read_layers(network, example)
    plan = _plan(network, example, needed=freeze is not None)
    of_run = record.frozen_stages if record is not None and plan is not None else None
    frozen = freeze if freeze is not None else of_run or 0
    if plan is not None and frozen > len(plan.cuts):
        raise UsageError(f"--freeze {frozen}: '{backbone}' has {len(plan.cuts)} stages below its head.")
    stages = _stages(network, layers, plan, frozen)
    return Summary(backbone, said, classes or outputs, size, len(plan.cuts) if plan else 0, stages)


def _plan(network: Network, example: torch.Tensor, *, needed: bool) -> StagePlan | None:
    try:
        return plan_stages(network, example)
    except UsageError as error:
        if needed:
            raise
        notice(f"without stages: {error}")
        return None


def _stages(network: Network, layers: list[Layer], plan: StagePlan | None, frozen: int) -> tuple[Stage, ...]:
    named = [_without_prefix(layer) for layer in layers]
    if plan is None:
        return (Stage(None, None, False, False, tuple(named)),)
    of_parameter = {name: number for number, names in enumerate(stage_parameters(network, plan)) for name in names}
    of_node: dict[str, int] = {}
    number = 0
    for node in plan.graph.graph.nodes:
        if node.op == "call_module":
            of_node.setdefault(str(node.target), number)
        number += node.name in plan.cuts
    groups: list[list[Layer]] = [[] for _ in range(len(plan.cuts) + 1)]
    last = 0
    for layer, shown in zip(layers, named, strict=True):
        # A block's own arithmetic is no node of the graph; it goes with its parameters, or with what was before it.
        inside = [stage for name, stage in of_parameter.items() if name.startswith(f"{layer.name}.")]
        last = of_node.get(layer.name, max(inside, default=last))
        groups[last].append(shown)
    return tuple(
        Stage(
            index + 1,
            plan.shapes[index] if index < len(plan.shapes) else None,
            index == len(plan.cuts),
            index < frozen,
            tuple(members),
        )
        for index, members in enumerate(groups)
    )


def _without_prefix(layer: Layer) -> Layer:
    return Layer(layer.name.removeprefix(_PREFIX), layer.kind, layer.output, layer.parameters, layer.macs)
