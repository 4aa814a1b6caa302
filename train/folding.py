"""Fine-tuning with BatchNorm folded into the convolutions.

A pretrained network's BatchNorm has statistics of a million pictures; a small dataset's batches give worse ones. Kept
fixed, a BatchNorm is a scale and a shift, which the convolution before it can absorb: half of a MobileNet's training step
was spent on normalising. What is then trained is what the device runs, an update does not depend on what else is in the
batch, and training and evaluation are one function.

The run's file keeps the backbone's own layout: :meth:`FoldedBackbone.state` divides the trained scale out again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

__all__ = ["FoldedBackbone", "fold_batchnorm"]


@dataclass(frozen=True)
class _Pair:
    """One folded convolution: `scale` and `mean` are what its BatchNorm had."""

    convolution: str
    norm: str
    had_bias: bool
    scale: torch.Tensor
    mean: torch.Tensor


class FoldedBackbone:
    """What was folded in a backbone, and the way back to its own layout."""

    def __init__(self, backbone: nn.Module, pairs: list[_Pair], template: dict[str, torch.Tensor]) -> None:
        self._backbone, self._pairs, self._template = backbone, pairs, template

    def state(self, folded: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Tensors in the backbone's own layout: the same function in eval mode, BatchNorm and all.

        Args:
            folded: Tensors of the folded backbone, by the names of its `state_dict`. Default: as they are now.
        """
        now = self._backbone.state_dict() if folded is None else folded
        state = {name: now.get(name, value).detach() for name, value in self._template.items()}
        for pair in self._pairs:
            weight, bias = now[f"{pair.convolution}.weight"].detach(), now[f"{pair.convolution}.bias"].detach()
            scale, mean = pair.scale.to(bias.device), pair.mean.to(bias.device)
            state[f"{pair.convolution}.weight"] = weight / scale.view(-1, *[1] * (weight.ndim - 1))
            # scale * (convolution - mean) + norm's bias: the norm takes the whole shift.
            if pair.had_bias:
                state[f"{pair.convolution}.bias"] = torch.zeros_like(bias)
            state[f"{pair.norm}.bias"] = bias + scale * mean
        return state

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of :meth:`state`: fill the folded backbone from tensors in its own layout."""
        folded = {name: value for name, value in state.items() if name in self._backbone.state_dict()}
        for pair in self._pairs:
            weight = state[f"{pair.convolution}.weight"]
            folded[f"{pair.convolution}.weight"] = weight * pair.scale.view(-1, *[1] * (weight.ndim - 1))
            bias = state[f"{pair.norm}.bias"] - pair.scale * pair.mean
            if pair.had_bias:
                bias = bias + pair.scale * state[f"{pair.convolution}.bias"]
            folded[f"{pair.convolution}.bias"] = bias
        self._backbone.load_state_dict(folded)


def fold_batchnorm(backbone: nn.Module) -> FoldedBackbone:
    """Fold every BatchNorm that directly follows a convolution into it, in place; others stay and keep their statistics.

    A backbone that cannot be traced is left as it is: the result then has nothing folded.
    """
    template = {name: value.clone() for name, value in backbone.state_dict().items()}
    pairs: list[_Pair] = []
    for convolution_name, norm_name in _foldable(backbone):
        convolution, norm = backbone.get_submodule(convolution_name), backbone.get_submodule(norm_name)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        deviation = (norm.running_var + norm.eps).sqrt()
        gain = norm.weight.detach().clone()
        # A channel whose gain is (nearly) nothing could not be divided out again: it gets the gain that makes its
        # scale one, and a kernel of (nearly) zeros.
        dead = gain.abs() < 1e-3 * deviation
        factor = gain / deviation
        scale = torch.where(dead, torch.ones_like(factor), factor)
        with torch.no_grad():
            shape = (-1, *[1] * (convolution.weight.ndim - 1))
            weight = convolution.weight * factor.view(shape)
            own_bias = torch.zeros_like(factor) if convolution.bias is None else convolution.bias
            bias = norm.bias + factor * (own_bias - norm.running_mean)
        pairs.append(_Pair(convolution_name, norm_name, convolution.bias is not None, scale, norm.running_mean.clone()))
        template[f"{norm_name}.weight"] = torch.where(dead, deviation, gain)
        convolution.weight = nn.Parameter(weight)
        convolution.bias = nn.Parameter(bias)
        _replace(backbone, norm_name, nn.Identity())
    # A norm that is left (after a concatenation, say) keeps its statistics too, or the network would be half of each.
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = _frozen_class(type(module))  # type: ignore[assignment]
    return FoldedBackbone(backbone, pairs, template)


def _foldable(backbone: nn.Module) -> list[tuple[str, str]]:
    """Names of (convolution, norm) where the norm is all that sees the convolution's output."""
    try:
        graph = fx.symbolic_trace(backbone)
    except Exception:  # whatever a model's own Python raises when it is traced
        return []
    modules = dict(backbone.named_modules())
    called: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            called[str(node.target)] = called.get(str(node.target), 0) + 1
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_module" or type(modules.get(str(node.target))) is not nn.BatchNorm2d:
            continue
        norm = modules[str(node.target)]
        before = node.args[0]
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and isinstance(modules.get(str(before.target)), nn.Conv2d)
            and len(before.users) == 1
            and called[str(before.target)] == called[str(node.target)] == 1
            and isinstance(norm, nn.BatchNorm2d)
            and norm.affine
            and norm.running_var is not None
        ):
            found.append((str(before.target), str(node.target)))
    return found


def _frozen_class(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind` that stays in eval mode: fixed statistics, trainable gain and shift."""

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        return nn.Module.train(self, False)

    # The module's name stays: it tells tracing that this is a layer, not Python to look into.
    return type(f"Frozen{kind.__name__}", (kind,), {"train": train, "__module__": kind.__module__})


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
