"""Depthwise convolutions whose weight gradient is fast on every CPU.

oneDNN has no depthwise kernel for the weight gradient of many shapes (5 x 5 on CPUs without AVX-512, for one) and falls
back to one small matrix product per channel and picture; that one operation then takes four fifths of a MobileNetV3
training step. The same gradient is a sum over kernel positions of elementwise products, which needs no kernel at all.
`python -m edgewright.benchmarks.peers.depthwise` measures both.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

__all__ = ["DepthwiseFunction", "has_fast_gradient", "speed_up_depthwise"]

_LARGEST_MAP = 14 * 14
"""Positions of a feature map up to which our gradient is used; on large maps the fallback's products are long enough."""


class DepthwiseFunction(torch.autograd.Function):
    """conv2d with groups == channels; everything but the weight gradient is PyTorch's own."""

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding, 1, images.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        images, weight = ctx.saved_tensors
        (gradient,) = gradients
        ours = gradient.shape[2] * gradient.shape[3] <= _LARGEST_MAP
        image_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), images.shape[1],
            (ctx.needs_input_grad[0], not ours, False),
        )  # fmt: skip
        if ours:
            weight_gradient = _weight_gradient(images, gradient, weight, ctx.stride, ctx.padding)
        return image_gradient, weight_gradient, None, None


def _weight_gradient(
    images: torch.Tensor,
    gradient: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> torch.Tensor:
    """D loss / d weight[c, 0, i, j] = sum over n, y, x of gradient[n, c, y, x] * padded[n, c, y s + i, x s + j]."""
    # Channels last: each product then runs along contiguous channels, and the sum is over the leading axes.
    padded = functional.pad(images, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1).contiguous()
    wanted = gradient.permute(0, 2, 3, 1).contiguous()
    height, width = wanted.shape[1:3]
    result = torch.empty_like(weight)
    for row in range(weight.shape[2]):
        rows = slice(row, row + (height - 1) * stride[0] + 1, stride[0])
        for column in range(weight.shape[3]):
            columns = slice(column, column + (width - 1) * stride[1] + 1, stride[1])
            result[:, 0, row, column] = (padded[:, rows, columns] * wanted).sum(dim=(0, 1, 2))
    return result


def has_fast_gradient(convolution: nn.Conv2d, input: torch.Tensor) -> bool:
    """Whether `convolution`, in this step of training on a CPU, is better computed by :class:`DepthwiseFunction`."""
    return (
        convolution.training
        and torch.is_grad_enabled()
        and input.device.type == "cpu"
        # Under autocast the forward runs in bf16, and a backward of our own would meet FP32 tensors.
        and not torch.is_autocast_enabled("cpu")
        and convolution.groups == convolution.in_channels == convolution.out_channels > 1
        and convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )


class _Depthwise(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not has_fast_gradient(self, input):
            return super().forward(input)
        stride, padding = cast("tuple[int, int]", self.stride), cast("tuple[int, int]", self.padding)
        result = cast("torch.Tensor", DepthwiseFunction.apply(input, self.weight, stride, padding))
        return result if self.bias is None else result + self.bias.view(1, -1, 1, 1)


def speed_up_depthwise(model: nn.Module) -> None:
    """Give the depthwise convolutions of `model` the fast weight gradient, in place; parameters stay what they are.

    Only on a CPU in training does anything differ, and there only by rounding.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = _Depthwise
