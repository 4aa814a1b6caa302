"""Fake quantization: values rounded to what eight bits can hold, with gradients that see through the rounding.

Everything here computes in float exactly what QuantizeLinear and DequantizeLinear do one after the other: divide by the
scale, round half to even, saturate, multiply.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch

from edgewright.runtime.errors import UsageError

__all__ = ["dequantize", "fake_quantize", "quantize_bias", "quantize_weight", "weight_scale", "widened"]

_INT32 = 2**31 - 1

_BIAS_LIMIT = 2**30
"""Codes of a bias stay below this; the rest of int32 is for the sum of products that is added to it."""

_TINY = 1e-12


class _FakeQuantize(torch.autograd.Function):
    """Rounding to a learned step: Esser et al., "Learned Step Size Quantization", ICLR 2020."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        steps = values / scale
        result = steps.round().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(steps, result, scale)
        ctx.low, ctx.high = low, high
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        steps, result, scale = ctx.saved_tensors
        (gradient,) = gradients
        # Zero where it was cut off. This operator is several times as fast as a mask and `where`.
        passed = torch.ops.aten.hardtanh_backward(gradient, steps, ctx.low - 0.5, ctx.high + 0.5)
        # d result / d scale is code - step where it was rounded, and code where it was cut off: code - step + step.
        slope = _dot(gradient, torch.sub(steps, result, alpha=1 / scale.item())).neg_()
        slope += _dot(gradient - passed, steps)
        # The paper's gradient scale: with it a step learns about as fast as the weights do.
        return passed, slope / math.sqrt(gradient[0].numel() * (ctx.high - ctx.low)), None, None


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Sum of products."""
    dense = left.is_contiguous() or left.is_contiguous(memory_format=torch.channels_last)
    if dense and left.stride() == right.stride():
        # Both lie in memory in the same order, so that nothing needs to be copied.
        return torch.dot(left.as_strided((left.numel(),), (1,)), right.as_strided((right.numel(),), (1,)))
    return (left * right).sum()


def fake_quantize(values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Values as a quantized tensor holds them.

    Args:
        values: float32 (N, ...).
        scale: float32 (), learned.
        low: Smallest code less the zero point.
        high: Largest code less the zero point.

    Returns:
        float32 (N, ...). Its gradient passes unchanged to values within the range, and not at all to others.
    """
    return cast("torch.Tensor", _FakeQuantize.apply(values, scale, low, high))


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int) -> torch.Tensor:
    """What whole numbers stand for; scale and zero point are one number each, or one per channel along `axis`.

    Raises:
        UsageError: `codes` are no whole numbers, so that the graph is not what it was taken for.
    """
    if codes.is_floating_point():
        raise UsageError(
            "A DequantizeLinear behind something else than QuantizeLinear, pixels or a constant cannot be trained."
        )
    if scale.numel() > 1:
        shape = [-1 if place == axis else 1 for place in range(codes.dim())]
        scale, zero_point = scale.view(shape), zero_point.view(shape)
    return (codes.to(torch.int32) - zero_point).float() * scale


def weight_scale(weight: torch.Tensor, axis: int | None, limit: int) -> torch.Tensor:
    """The scale with which the largest weight becomes `limit`: float32 (channels), or () if `axis` is None."""
    with torch.no_grad():
        largest = weight.abs().max() if axis is None else weight.movedim(axis, 0).flatten(1).abs().amax(1)
        return largest.clamp_min(_TINY) / limit


def widened(scale: torch.Tensor, bias: torch.Tensor, input_scale: torch.Tensor) -> torch.Tensor:
    """A weight's scale (channels) or (), made large enough for the bias (channels) to fit into 32 bits.

    A bias has the scale of its input times that of its weight, so that a channel of weights near zero would leave it
    none that it fits into.
    """
    with torch.no_grad():
        needed = bias.abs() / (input_scale * _BIAS_LIMIT)
        return torch.maximum(scale, needed if scale.dim() else needed.max())


def quantize_weight(
    weight: torch.Tensor, scale: torch.Tensor, axis: int | None, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (integers in float32), and the weight that they stand for, whose gradient is the weight's own."""
    if axis is not None:
        scale = scale.view([-1 if place == axis else 1 for place in range(weight.dim())])
    with torch.no_grad():
        codes = (weight / scale).round_().clamp_(-limit, limit)
        change = codes * scale - weight
    return codes, weight + change


def quantize_bias(bias: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (integers in float64), and the bias that they stand for, whose gradient is the bias's own."""
    with torch.no_grad():
        codes = (bias.double() / scale.double()).round_().clamp_(-_INT32, _INT32)
        change = (codes * scale.double()).float() - bias
    return codes, bias + change
