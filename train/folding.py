"""Fine-tuning with fixed BatchNorm statistics, computed inside the convolutions.

A pretrained network's BatchNorm has statistics of a million pictures; a small dataset's batches give worse ones. Kept
fixed, a BatchNorm is a gain and a shift, which the convolution before it can apply to its kernel instead of to its
output: half of a MobileNet's training step was spent on normalising. Kernel, gain and shift still learn, as themselves;
an update does not depend on what else is in the batch; and training and evaluation are one function.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import fx, nn

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import trace
from edgewright.train.depthwise import DepthwiseFunction, has_fast_gradient

__all__ = ["fix_batchnorm"]


class _FoldedConv(nn.Conv2d):
    """A convolution that does the work of the BatchNorm behind it; its parameters keep their names and meaning."""

    _norm: tuple[nn.BatchNorm2d]  # in a tuple, or it would be registered a second time

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        (norm,) = self._norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * gain
        if self.bias is not None:
            shift = shift + self.bias * gain
        weight = self.weight * gain.view(-1, 1, 1, 1)
        if has_fast_gradient(self, input):
            stride, padding = cast("tuple[int, int]", self.stride), cast("tuple[int, int]", self.padding)
            result = cast("torch.Tensor", DepthwiseFunction.apply(input, weight, stride, padding))
            return result + shift.view(1, -1, 1, 1)
        return cast("torch.Tensor", self._conv_forward(input, weight, shift))


class _Absorbed:
    """Mixed into a BatchNorm whose work is done: passes its input on, to timm's activation if it has one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        for name in ("drop", "act"):
            following = getattr(self, name, None)
            if following is not None:
                input = following(input)
        return input


class _Fixed:
    """Mixed into a BatchNorm: stays in eval mode, so its statistics stay; gain and shift learn."""

    def train(self, mode: bool = True) -> nn.Module:
        return nn.Module.train(cast("nn.Module", self), False)


def fix_batchnorm(backbone: nn.Module) -> int:
    """Fix the statistics of every BatchNorm, in place, and fold those that directly follow a convolution into it.

    The state dict keeps its names, shapes and meaning. A backbone that cannot be traced has none folded.

    Returns:
        How many were folded.
    """
    pairs = _foldable(backbone)
    for convolution, norm in pairs:
        convolution.__dict__["_norm"] = (norm,)
        convolution.__class__ = _FoldedConv
        norm.__class__ = _with(_Absorbed, type(norm))  # type: ignore[assignment]
    # One that is left (behind a concatenation, say) keeps its statistics too.
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _Absorbed):
            module.__class__ = _with(_Fixed, type(module))  # type: ignore[assignment]
    return len(pairs)


def _with(mixin: type, kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"{mixin.__name__.strip('_')}{kind.__name__}", (mixin, kind), {})


def _foldable(backbone: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and norms where the norm is all that sees the convolution's output."""
    try:
        graph = trace(backbone)
    except UsageError:
        return []
    modules = dict(backbone.named_modules())
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    called: dict[str, int] = {}
    for node in calls:
        called[str(node.target)] = called.get(str(node.target), 0) + 1
    found = []
    for node in calls:
        norm, before = modules[str(node.target)], node.args[0]
        if not (isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1):
            continue
        convolution = modules[str(before.target)]
        if (
            type(convolution) is nn.Conv2d
            and convolution.padding_mode == "zeros"
            and isinstance(norm, nn.BatchNorm2d)
            and norm.affine
            and norm.running_var is not None
            and called[str(before.target)] == called[str(node.target)] == 1
        ):
            found.append((convolution, norm))
    return found
