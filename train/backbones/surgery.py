"""Cutting a backbone: its head replaced, its frozen part taken off as a network of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from edgewright.runtime.errors import UsageError

__all__ = ["StagePlan", "head_of", "is_layer", "plan_stages", "replace_head", "split_at", "stage_parameters", "trace"]


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer, the one that gives the logits.

    Raises:
        UsageError: the model has none.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise UsageError(f"{type(model).__name__} has no linear layer that could be its head.")
    return found[-1]


def replace_head(model: nn.Module, classes: int) -> None:
    """Give `model` a fresh linear head with `classes` outputs, in place.

    SqueezeNet ends in a convolution, a ReLU and a mean, which cannot give negative logits; it gets dropout, the mean
    and a linear layer instead.
    """
    last = getattr(model, "classifier", None)
    if not any(isinstance(module, nn.Linear) for module in model.modules()) and isinstance(last, nn.Sequential):
        channels = next(module.in_channels for module in last if isinstance(module, nn.Conv2d))
        model.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, classes)
        )
        return
    name, head = head_of(model)
    parent, _, attribute = name.rpartition(".")
    fresh = nn.Linear(head.in_features, classes)
    nn.init.normal_(fresh.weight, std=0.01)
    nn.init.zeros_(fresh.bias)
    setattr(model.get_submodule(parent), attribute, fresh)


@dataclass(frozen=True)
class StagePlan:
    """Where a network can be cut.

    Attributes:
        graph: The traced network, eval mode.
        cuts: Names of the graph nodes after which each stage ends, from the input on; the last one is what the head
            sees. Freezing n stages means computing up to `cuts[n - 1]`.
        shapes: Shape of each cut's value for one image, without the batch axis.
    """

    graph: fx.GraphModule
    cuts: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


def is_layer(module: nn.Module) -> bool:
    """Is `module` one of PyTorch's layers, derived from one, or without anything inside? Else it is a block of them."""
    return not any(True for _ in module.children()) or any(
        kind.__module__.startswith("torch.nn.modules") and kind not in _CONTAINERS for kind in type(module).__mro__
    )


class _LayerTracer(fx.Tracer):
    """Keeps every layer whole, also those that timm and torchvision derive from PyTorch's or write themselves.

    Looked into, a BatchNorm would be recorded as it acts while tracing, in eval mode, and stay so in training.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m)


_REMAINING = "Strategies that train every layer remain: full, scratch."


def trace(network: nn.Module) -> fx.GraphModule:
    """`network` as a graph of its layers; it shares them.

    Raises:
        UsageError: what the network does depends on the values of its input.
    """
    tracer = _LayerTracer()
    try:
        return fx.GraphModule(network, tracer.trace(network))
    # What goes wrong in code that is run with stand-ins for tensors can be any exception.
    except Exception as error:
        title = type(getattr(network, "backbone", network)).__name__
        raise UsageError(
            f"{title} cannot be divided into stages: torch.fx cannot trace it ({str(error).splitlines()[0]}). {_REMAINING}"
        ) from error


def plan_stages(network: nn.Module, example: torch.Tensor) -> StagePlan:
    """Divide `network` into stages: the stretches between two reductions of the spatial size.

    A cut is only possible after a node whose value is all that later nodes need. A network whose resolution never
    changes (a transformer) is divided into four stretches with the same number of possible cuts.

    Args:
        network: uint8 images, shape (N, height, width, 3), to logits; ends in a linear head.
        example: One such batch; only its shape matters.

    Raises:
        UsageError: the network cannot compute images of this size, or cannot be divided.
    """
    title = type(getattr(network, "backbone", network)).__name__
    with torch.no_grad():
        try:
            network.eval()(example)
        except (RuntimeError, AssertionError, ValueError) as error:
            # Before ShapeProp, which would print a traceback.
            raise UsageError(
                f"{title} cannot compute an image of {example.shape[1]} x {example.shape[2]} px: "
                f"{str(error).splitlines()[0]}. Use another --imgsz."
            ) from error
        graph = trace(network)
        ShapeProp(graph).propagate(example)
    head_name, _ = head_of(network)
    possible = _single_value_nodes(graph)
    head_input = next(
        (
            cast("fx.Node", node.args[0])
            for node in graph.graph.nodes
            if node.op == "call_module" and node.target == head_name
        ),
        None,
    )
    if head_input is None or head_input not in possible:
        raise UsageError(f"The head of {title} cannot be cut off: it is not the one last step. {_REMAINING}")
    before_head = possible[: possible.index(head_input) + 1]

    order = {node: number for number, node in enumerate(graph.graph.nodes)}
    first_weight = min(number for node, number in order.items() if _has_parameters(graph, node))
    inside = [node for node in before_head[:-1] if order[node] >= first_weight and len(_shape(node)) == 4]
    ends: list[fx.Node] = []
    for number, node in enumerate(inside):
        if number + 1 == len(inside) or _resolution(inside[number + 1]) < _resolution(node):
            ends.append(node)
    if len(ends) < 3:
        blocks = [node for node in before_head[:-1] if order[node] >= first_weight]
        ends = [blocks[(len(blocks) * quarter) // 4 - 1] for quarter in (1, 2, 3, 4) if len(blocks) >= 4]
    # Pooling to 1 x 1 has no weights: what follows the last weight belongs to the last stage.
    with_weights = [
        end for number, end in enumerate(ends) if _weights_between(graph, ends[number - 1] if number else None, end)
    ]
    if with_weights and not _weights_between(graph, with_weights[-1], head_input):
        with_weights.pop()
    cuts = [*with_weights, head_input]
    return StagePlan(graph, tuple(node.name for node in cuts), tuple(_shape(node)[1:] for node in cuts))


def split_at(plan: StagePlan, cut: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The network up to node `cut` and from it on, as (frozen, tail). Both share the network's parameters."""
    frozen, tail = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    target = frozen
    for node in plan.graph.graph.nodes:
        if node.op == "output":
            tail.output(copied[cast("fx.Node", node.args[0])])
            continue
        copied[node] = target.node_copy(node, lambda old: copied[old])
        if node.name == cut:
            frozen.output(copied[node])
            target = tail
            copied[node] = tail.placeholder("activation")
    return fx.GraphModule(plan.graph, frozen, "Frozen"), fx.GraphModule(plan.graph, tail, "Tail")


def stage_parameters(network: nn.Module, plan: StagePlan) -> list[list[str]]:
    """Names of `network`'s parameters, as `named_parameters` gives them, stage by stage from the input on.

    Entry n (from 0) holds what is computed up to `plan.cuts[n]`; one more entry, the last, holds what follows the last
    cut: the head. Every parameter stands in it once: one that several stages share in the first of them, one that the
    forward pass never reads (a sub-module that is only built) in stage 0, which is frozen first.

    Args:
        network: The network that `plan` was made of, or a copy of it.
        plan: Of :func:`plan_stages`.
    """
    canonical = {id(value): name for name, value in network.named_parameters()}
    aliases = {name: canonical[id(value)] for name, value in network.named_parameters(remove_duplicate=False)}
    stages: list[list[str]] = [[] for _ in range(len(plan.cuts) + 1)]
    unread = dict.fromkeys(canonical.values())
    stage = 0
    for node in plan.graph.graph.nodes:
        for name in _parameter_names(plan.graph, node):
            if aliases[name] in unread:
                del unread[aliases[name]]
                stages[stage].append(aliases[name])
        if node.name in plan.cuts:
            stage += 1
    stages[0] += unread
    return stages


def _parameter_names(graph: fx.GraphModule, node: fx.Node) -> list[str]:
    """Qualified names of the parameters that `node` reads."""
    target = str(node.target)
    if node.op == "call_module":
        return [f"{target}.{name}" for name, _ in graph.get_submodule(target).named_parameters()]
    return [target] if _has_parameters(graph, node) else []


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta")
    return tuple(getattr(meta, "shape", ()))


def _resolution(node: fx.Node) -> int:
    """Width of a square feature map, channels first or (ConvNeXt, MaxViT, Swin) last."""
    _, first, second, third = _shape(node)
    return first if first == second != third else third


def _has_parameters(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(True for _ in graph.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr" and isinstance(_attribute(graph, str(node.target)), nn.Parameter)


def _attribute(module: nn.Module, target: str) -> object:
    value: object = module
    for part in target.split("."):
        value = getattr(value, part)
    return value


def _weights_between(graph: fx.GraphModule, start: fx.Node | None, end: fx.Node) -> bool:
    inside = start is None
    for node in graph.graph.nodes:
        if inside and _has_parameters(graph, node):
            return True
        if node is end:
            return False
        inside = inside or node is start
    return False


def _single_value_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes after which only their own value is still needed."""
    nodes = [node for node in graph.graph.nodes if node.op not in ("get_attr", "output")]
    last_use = {node: max((user for user in node.users), default=node) for node in nodes}
    alive: set[fx.Node] = set()
    single = []
    for node in nodes:
        alive = {value for value in alive if last_use[value] > node}
        alive.add(node)
        if alive == {node}:
            single.append(node)
    return single
