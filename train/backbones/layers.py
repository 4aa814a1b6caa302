"""What a network consists of: its layers with their shapes, parameters and multiplications, and its depth.

Meant for networks built under `torch.device("meta")`: shapes are followed through, nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import is_layer, trace

__all__ = ["Layer", "depth_of", "read_layers"]


@dataclass(frozen=True)
class Layer:
    """A layer, or a block's own arithmetic (attention, for one) where that multiplies matrices outside any layer.

    Attributes:
        name: As in `named_modules`.
        kind: Its class.
        output: Shape of what it gives for one image, without the batch axis; None where that is not one tensor.
        parameters: Of the layer; of the block itself, without what is inside it.
        macs: Multiply-accumulate operations for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int


def read_layers(network: nn.Module, example: torch.Tensor) -> list[Layer]:
    """The layers of `network` in the order in which they are first used.

    torch's `FlopCounterMode` counts convolutions, matrix products and attention; a multiplication with the addition
    that follows it is one operation here, as it is in torchvision's tables, which call it a FLOP.

    Args:
        network: In eval mode.
        example: A batch of one image.

    Raises:
        UsageError: the network cannot compute an image of this size.
    """
    outputs: dict[str, tuple[int, ...] | None] = {}
    operations = dict.fromkeys((name for name, _ in network.named_modules()), 0)
    counter = FlopCounterMode(display=False)

    def entered(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            operations[name] -= counter.get_total_flops()

        return hook

    def left(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            operations[name] += counter.get_total_flops()
            outputs.setdefault(name, tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None)

        return hook

    hooks: list[RemovableHandle] = []
    for name, module in network.named_modules():
        hooks += [module.register_forward_pre_hook(entered(name)), module.register_forward_hook(left(name))]
    try:
        # Gradients stay on: without them PyTorch fuses an encoder layer into one operation that no counter knows.
        with counter, torch.device(example.device):
            network(example)
    except (RuntimeError, AssertionError, ValueError) as error:
        title = type(getattr(network, "backbone", network)).__name__
        raise UsageError(
            f"{title} cannot compute an image of {tuple(example.shape[1:])}: {str(error).splitlines()[0]}. "
            "Use another --imgsz."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()

    return _rows(network, outputs, operations)


def _rows(network: nn.Module, outputs: dict[str, tuple[int, ...] | None], operations: dict[str, int]) -> list[Layer]:
    modules = dict(network.named_modules())
    # What belongs to a layer is not a layer of its own.
    called = [name for name in outputs if not any(is_layer(modules[above]) for above in _above(name))]
    parameters = dict.fromkeys(called, 0)
    for name, value in network.named_parameters():
        # A layer whose weights another one reads, without calling it, is part of that one.
        parameters[next(above for above in _above(name) if above in parameters)] += value.numel()
    own = {name: operations[name] for name in called}
    for name in called:
        if name:
            own[next(above for above in _above(name) if above in own)] -= operations[name]
    return [
        Layer(name, type(modules[name]).__name__, outputs[name], parameters[name], own[name] // 2)
        for name in called
        if is_layer(modules[name]) or own[name] or parameters[name]
    ]


def _above(name: str) -> list[str]:
    """Names of the modules that `name` lies in, the nearest first, the network itself ('') last."""
    parts = name.split(".") if name else []
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]


def depth_of(model: nn.Module) -> int | None:
    """Layers with weights (convolutions, linear layers, projections of attention) on the longest way through `model`.

    The number that stands in the names of ResNet-18 and VGG-16. Layers that lie beside each other, as in a shortcut or
    an inception block, count once. None for a model that cannot be traced.
    """
    try:
        graph = trace(model)
    except UsageError:
        return None
    depth: dict[Any, int] = {}
    for node in graph.graph.nodes:
        before = max((depth[source] for source in node.all_input_nodes), default=0)
        if node.op == "call_module":
            own = _weights(graph.get_submodule(str(node.target)).named_parameters())
        else:
            read = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
            own = _weights((name, value) for name, value in graph.named_parameters() if name in read)
        depth[node] = before + own
    return max(depth.values())


def _weights(parameters: Iterable[tuple[str, torch.Tensor]]) -> int:
    return sum(name.endswith("weight") and value.ndim > 1 for name, value in parameters)
