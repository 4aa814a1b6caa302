"""ONNX operators (opset 17) as differentiable torch functions: those that our exporter writes for convolutional networks.

https://github.com/onnx/onnx/blob/main/docs/Operators.md says what each one means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch.nn import functional

from edgewright.runtime.errors import UsageError
from edgewright.train.depthwise import DepthwiseFunction

__all__ = ["OPERATORS", "Attributes", "Inputs", "Operator", "Outputs"]

Attributes: TypeAlias = Mapping[str, Any]
Inputs: TypeAlias = Sequence["torch.Tensor | None"]
Outputs: TypeAlias = tuple[torch.Tensor, ...]
Operator: TypeAlias = Callable[[Attributes, Inputs], "torch.Tensor | Outputs"]

_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}
"""torch's types by their number in `onnx.TensorProto.DataType`."""


def _given(inputs: Inputs, place: int) -> torch.Tensor | None:
    """An optional input; None where it is left out."""
    return inputs[place] if place < len(inputs) else None


def _need(inputs: Inputs, place: int = 0) -> torch.Tensor:
    value = inputs[place]
    assert value is not None  # the checker has seen to it
    return value


def _numbers(inputs: Inputs, place: int) -> list[int] | None:
    value = _given(inputs, place)
    return None if value is None else [int(number) for number in value.reshape(-1).tolist()]


def _padded(images: torch.Tensor, attributes: Attributes, value: float) -> tuple[torch.Tensor, tuple[int, int]]:
    """Images, and the (vertical, horizontal) padding that is left for torch, which knows symmetric padding only."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UsageError(f"auto_pad={attributes['auto_pad']} is not supported in training; expected explicit pads.")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return images, (top, left)
    return functional.pad(images, (left, right, top, bottom), value=value), (0, 0)


def _pair(attributes: Attributes, name: str) -> tuple[int, int]:
    first, second = attributes.get(name, (1, 1))
    return first, second


def _conv(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    images, weight, bias = _need(inputs), _need(inputs, 1), _given(inputs, 2)
    if weight.dim() != 4:
        raise UsageError(f"A convolution over {weight.dim() - 2} axes is not supported in training; expected 2.")
    images, padding = _padded(images, attributes, 0.0)
    stride, dilation, groups = _pair(attributes, "strides"), _pair(attributes, "dilations"), attributes.get("group", 1)
    depthwise = groups == images.shape[1] == weight.shape[0] > 1 and dilation == (1, 1)
    if depthwise and weight.requires_grad and torch.is_grad_enabled() and images.device.type == "cpu":
        result = cast("torch.Tensor", DepthwiseFunction.apply(images, weight, stride, padding))
        return result if bias is None else result + bias.view(1, -1, 1, 1)
    return functional.conv2d(images, weight, bias, stride, padding, dilation, groups)


def _max_pool(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    images, padding = _padded(_need(inputs), attributes, -torch.inf)
    return functional.max_pool2d(
        images,
        attributes["kernel_shape"],
        _pair(attributes, "strides"),
        padding,
        _pair(attributes, "dilations"),
        bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        # Padding beforehand would count what is added in the average.
        raise UsageError("AveragePool with different pads on opposite sides is not supported in training.")
    images, padding = _padded(_need(inputs), attributes, 0.0)
    return functional.avg_pool2d(
        images,
        attributes["kernel_shape"],
        _pair(attributes, "strides"),
        padding,
        bool(attributes.get("ceil_mode", 0)),
        bool(attributes.get("count_include_pad", 0)),
    )


def _gemm(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    left, right, bias = _need(inputs), _need(inputs, 1), _given(inputs, 2)
    left = left.T if attributes.get("transA", 0) else left
    right = right.T if attributes.get("transB", 0) else right
    product = (left @ right).mul(float(attributes.get("alpha", 1.0)))
    return product if bias is None else product.add(bias, alpha=float(attributes.get("beta", 1.0)))


def _batch_norm(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    images, weight, bias, mean, variance = (_need(inputs, place) for place in range(5))
    return functional.batch_norm(images, mean, variance, weight, bias, eps=attributes.get("epsilon", 1e-5))


def _clip(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    low, high = _given(inputs, 1), _given(inputs, 2)
    # Numbers, not tensors: torch's gradient with tensor bounds costs several passes more.
    return _need(inputs).clamp(None if low is None else float(low), None if high is None else float(high))


def _hard_sigmoid(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    steps = _need(inputs).mul(float(attributes.get("alpha", 0.2)))
    return steps.add(float(attributes.get("beta", 0.5))).clamp(0, 1)


def _reshape(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values, shape = _need(inputs), _numbers(inputs, 1)
    assert shape is not None
    if not attributes.get("allowzero", 0):
        shape = [values.shape[place] if number == 0 else number for place, number in enumerate(shape)]
    return values.reshape(shape)


def _flatten(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values, axis = _need(inputs), attributes.get("axis", 1)
    rows = 1
    for length in values.shape[:axis]:
        rows *= length
    return values.reshape(rows, -1)


def _split(attributes: Attributes, inputs: Inputs) -> Outputs:
    values, axis, sizes = _need(inputs), attributes.get("axis", 0), _numbers(inputs, 1)
    if sizes is None:
        return tuple(values.chunk(attributes[OUTPUT_COUNT], axis))
    return torch.split_with_sizes(values, sizes, axis)


OUTPUT_COUNT = "output count"
"""Not an attribute in ONNX: how many outputs the node has, which is how Split without sizes is told."""


def _reduce_mean(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values = _need(inputs)
    axes = list(attributes.get("axes", range(values.dim())))
    return values.mean(axes, keepdim=bool(attributes.get("keepdims", 1)))


def _gather(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values, wanted, axis = _need(inputs), _need(inputs, 1).long(), attributes.get("axis", 0) % _need(inputs).dim()
    wanted = torch.where(wanted < 0, wanted + values.shape[axis], wanted)
    picked = values.index_select(axis, wanted.reshape(-1))
    return picked.reshape(*values.shape[:axis], *wanted.shape, *values.shape[axis + 1 :])


def _pad(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values, pads, fill = _need(inputs), _numbers(inputs, 1), _given(inputs, 2)
    if attributes.get("mode", "constant") != "constant" or pads is None or _given(inputs, 3) is not None:
        raise UsageError("Pad is supported in training with constants over all axes only.")
    half = len(pads) // 2
    # ONNX: all beginnings, then all ends, first axis first; torch: beginning and end in turn, last axis first.
    turned = [pads[place + side] for place in reversed(range(half)) for side in (0, half)]
    return functional.pad(values, turned, value=0.0 if fill is None else float(fill))


def _squeeze(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    axes = _numbers(inputs, 1)
    return _need(inputs).squeeze() if axes is None else _need(inputs).squeeze(axes)


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values, axes = _need(inputs), _numbers(inputs, 1)
    assert axes is not None
    for axis in sorted(axis % (values.dim() + len(axes)) for axis in axes):
        values = values.unsqueeze(axis)
    return values


def _transpose(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    values = _need(inputs)
    return values.permute(attributes.get("perm", tuple(reversed(range(values.dim())))))


def _cast(attributes: Attributes, inputs: Inputs) -> torch.Tensor:
    kind = attributes["to"]
    if kind not in _TYPES:
        raise UsageError(f"Cast to ONNX's type {kind} is not supported in training.")
    return _need(inputs).to(_TYPES[kind])


def _one(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda attributes, inputs: function(_need(inputs))


def _two(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda attributes, inputs: function(_need(inputs), _need(inputs, 1))


OPERATORS: Mapping[str, Operator] = {
    "Add": _two(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda attributes, inputs: torch.cat([_need(inputs, place) for place in range(len(inputs))], attributes["axis"]),
    "Conv": _conv,
    "Div": _two(torch.div),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _one(lambda images: images.mean((2, 3), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _one(functional.hardswish),
    "Identity": _one(lambda values: values),
    "MatMul": _two(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _two(torch.mul),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _one(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _one(torch.sigmoid),
    "Softmax": lambda attributes, inputs: _need(inputs).softmax(attributes.get("axis", -1)),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _two(torch.sub),
    "Tanh": _one(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
"""What each operator computes, by its name in ONNX."""
