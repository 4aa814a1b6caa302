"""A quantized ONNX graph taken apart: what is computed step by step, and what of it is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from edgewright.export.qat.operators import OPERATORS, OUTPUT_COUNT, Inputs, Outputs
from edgewright.export.qat.quantizers import dequantize, fake_quantize
from edgewright.runtime.errors import UsageError

__all__ = ["Activation", "Bias", "Program", "Step", "Weight", "read_program"]

_SUFFIX = "_quantized"
"""What ONNX Runtime's quantizer adds to the name of an initializer that it has quantized."""

_LEARNS = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,)}
"""Which inputs of a layer that stayed in float are trained as well."""

_CODES = {onnx.TensorProto.UINT8: (0, 255), onnx.TensorProto.INT8: (-128, 127)}

_FULL, _REDUCED = 127, 64
"""Largest code of a weight with eight bits, and with the seven that are safe on CPUs without VNNI."""

_HALF_STEP = 0.51
_MOST = 0.99
"""Share of a weight that must be no further than rounding from what its codes say, for the float graph's to be taken as
where they came from."""


@dataclass
class Activation:
    """What is quantized with one scale and one zero point, which several tensors may share.

    Attributes:
        log_scale: Logarithm of the scale, float32 (). It is learned instead of the scale: a step then changes the scale
            by a share of itself, whatever its size, and it stays positive (Jain et al., "Trained Quantization
            Thresholds", 2020).
        zero_point: The code of 0.
        codes: The smallest and the largest code.
        zero_point_name: Of its initializer; None if the zero point is the standard's 0.
        tensors: Names of what is quantized.
    """

    log_scale: torch.Tensor
    zero_point: int
    codes: tuple[int, int]
    zero_point_name: str | None
    tensors: list[str] = field(default_factory=list)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Values as codes hold them."""
        low, high = self.codes
        return fake_quantize(values, self.log_scale.exp(), low - self.zero_point, high - self.zero_point)


@dataclass(frozen=True)
class Weight:
    """A weight that is rounded to int8 at every use.

    Attributes:
        value: What is learned, float32.
        axis: Of the channels, each of which has a scale; None if they share one.
        limit: Largest code.
        scale: Name of the initializer with its scales.
        paired: Whether the file has it in float, before a Q/DQ pair; else it has the codes.
    """

    value: torch.Tensor
    axis: int | None
    limit: int
    scale: str
    paired: bool


@dataclass(frozen=True)
class Bias:
    """An int32 bias. Engines assume its scale to be that of the layer's input times that of its weight.

    Attributes:
        value: What is learned, float32.
        scale: Name of the initializer with its scales.
        input_scale: Name of the layer's input's scale.
        weight: Name of the layer's weight.
    """

    value: torch.Tensor
    scale: str
    input_scale: str
    weight: str


@dataclass(frozen=True)
class Step:
    """`compute` takes the tensors of the names `inputs`, and gives those of the names `outputs`."""

    compute: Callable[[Inputs], torch.Tensor | Outputs]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Program:
    """Everything by the name of its initializer; activations by that of their scale.

    Attributes:
        fixed_scales: Of pixels: what they mean is no matter of learning.
        plain: Weights and biases of layers that are in float.
        constants: What is not learned.
    """

    steps: list[Step] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    biases: dict[str, Bias] = field(default_factory=dict)
    activations: dict[str, Activation] = field(default_factory=dict)
    fixed_scales: dict[str, torch.Tensor] = field(default_factory=dict)
    plain: dict[str, torch.Tensor] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)


def read_program(float_model: onnx.ModelProto, quantized: onnx.ModelProto) -> Program:
    """Take `quantized` apart; see :class:`edgewright.export.qat.graph.TrainableGraph`.

    Raises:
        UsageError: an operator that cannot be trained, or a graph that is not quantized as it should be.
    """
    return _Reader(float_model, quantized).read()


class _Reader:
    def __init__(self, float_model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self.nodes = quantized.graph.node
        self.floats = {tensor.name: tensor for tensor in float_model.graph.initializer}
        self.tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.scale_of: dict[str, str] = {}  # the scale's name, of each activation behind a Q or a DQ
        self.origin: dict[str, str] = {}  # the initializer, of each weight and bias behind a Q or a DQ
        self.found = Program()

    def read(self) -> Program:
        found = self.found
        for node in self.nodes:
            if node.op_type == "QuantizeLinear":
                step = self._quantize(node)
            elif node.op_type == "DequantizeLinear":
                step = self._dequantize(node)
            elif node.op_type == "Constant":
                step = self._constant(node)
            else:
                step = self._layer(node)
            found.steps.append(step)
        learned = {*found.weights, *found.biases, *found.plain}
        used = {name for step in found.steps for name in step.inputs if name in self.tensors}
        found.constants = {name: torch.from_numpy(self._array(name)) for name in used - learned}
        return found

    def _layer(self, node: onnx.NodeProto) -> Step:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise UsageError(
                f"Quantization-aware training does not know the operator {node.op_type} (node '{node.name}'). "
                f"It knows {', '.join(sorted(OPERATORS))}. Leave this model in float, or choose another backbone."
            )
        for place in _LEARNS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name in self.tensors:
                self.found.plain.setdefault(name, _parameter(self._array(name)))
            elif place == 2 and name in self.origin:
                self._own_bias(node)
        attributes: dict[str, Any] = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        compute = partial(OPERATORS[node.op_type], attributes | {OUTPUT_COUNT: len(node.output)})
        return Step(compute, tuple(node.input), tuple(node.output))

    def _own_bias(self, node: onnx.NodeProto) -> None:
        """The bias of `node`, whose DequantizeLinear has been read."""
        codes = self.origin[node.input[2]]
        if codes not in self.found.biases:
            scale = self.producers[node.input[2]].input[1]
            if node.input[0] not in self.scale_of or node.input[1] not in self.origin:
                raise UsageError(f"The bias of '{node.name}' is quantized, but its input or its weight is not.")
            value = _parameter(self._array(codes) * self._array(scale))
            weight = self.origin[node.input[1]]
            self.found.biases[codes] = Bias(value, scale, self.scale_of[node.input[0]], weight)

    def _constant(self, node: onnx.NodeProto) -> Step:
        (value,) = (onnx.helper.get_attribute_value(attribute) for attribute in node.attribute)
        array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        tensor = torch.from_numpy(array.copy())
        return Step(lambda _: tensor, (), tuple(node.output))

    def _quantize(self, node: onnx.NodeProto) -> Step:
        source, name = node.input[:2]
        (output,) = node.output
        if source in self.tensors:
            value, scale = self._array(source), self._array(name)
            self._add_weight(source, value, node, _largest_code(value, _spread(scale, value, self._axis(node))), True)
            return self._stands_for(node, source)
        if self._array(name).size != 1:
            raise UsageError(f"'{source}' is quantized with a scale per channel; activations can have one scale only.")
        zero_points = self._zero_points(node)
        if zero_points.dtype not in (np.uint8, np.int8):
            raise UsageError(f"'{source}' is quantized to {zero_points.dtype}; expected 8 bits.")
        limits, zero_point = np.iinfo(zero_points.dtype), int(zero_points.reshape(-1)[0])
        low, high = int(limits.min), int(limits.max)
        self.scale_of[output] = name
        if self._is_grid_of_pixels(source, name):
            exact = self.found.fixed_scales[name] = torch.from_numpy(self._array(name).reshape(()))
            return Step(
                lambda inputs: fake_quantize(_only(inputs), exact, low - zero_point, high - zero_point),
                (source,),
                (output,),
            )
        activations = self.found.activations
        if name not in activations:
            zero_point_name = node.input[2] if len(node.input) > 2 else None
            log_scale = _parameter(np.log(self._array(name)).reshape(()))
            activations[name] = Activation(log_scale, zero_point, (low, high), zero_point_name)
        activation = activations[name]
        if (activation.zero_point, activation.codes) != (zero_point, (low, high)):
            raise UsageError(f"'{source}' shares the scale '{name}' with another tensor, but not its zero point.")
        activation.tensors.append(source)
        return Step(lambda inputs: activation(_only(inputs)), (source,), (output,))

    def _dequantize(self, node: onnx.NodeProto) -> Step:
        source, name = node.input[:2]
        (output,) = node.output
        if source in self.origin:
            return self._stands_for(node, self.origin[source])
        if source in self.scale_of:
            if not np.array_equal(self._array(name), self._array(self.scale_of[source])):
                raise UsageError(f"'{source}' is dequantized with another scale than it was quantized with.")
            self.scale_of[output] = self.scale_of[source]
            return Step(_only, (source,), (output,))
        zero_points, axis = self._zero_points(node), self._axis(node)
        if source in self.tensors and not zero_points.any():
            codes = self._array(source)
            if codes.dtype == np.int8:
                self._add_weight(
                    source, self._original(source, node), node, int(np.abs(codes.astype(int)).max()), False
                )
                return self._stands_for(node, source)
            if codes.dtype == np.int32:
                return self._stands_for(node, source)
        scale = torch.from_numpy(self._array(name))
        if source not in self.tensors and scale.numel() == 1:
            self.scale_of[output] = name
            self.found.fixed_scales[name] = scale.reshape(())
        offset = torch.from_numpy(zero_points.astype(np.int32))
        return Step(lambda inputs: dequantize(_only(inputs), scale, offset, axis), (source,), (output,))

    def _stands_for(self, node: onnx.NodeProto, initializer: str) -> Step:
        """A step that passes on what is learned, which comes quantized already."""
        (output,) = node.output
        self.origin[output] = initializer
        return Step(_only, (initializer,), (output,))

    def _add_weight(self, name: str, value: npt.NDArray[Any], node: onnx.NodeProto, largest: int, paired: bool) -> None:
        if self._zero_points(node).any():
            raise UsageError(f"The weight '{name}' has a zero point other than 0, which training does not keep.")
        if name not in self.found.weights:
            axis = self._axis(node) if self._array(node.input[1]).size > 1 else None
            limit = _REDUCED if largest <= _REDUCED else _FULL
            self.found.weights[name] = Weight(_parameter(value), axis, limit, node.input[1], paired)

    def _original(self, codes_name: str, node: onnx.NodeProto) -> npt.NDArray[Any]:
        """The float weight that these codes were made from; what they stand for, if the float graph's is another."""
        codes = self._array(codes_name).astype(np.float32)
        scale = _spread(self._array(node.input[1]), codes, self._axis(node))
        meant: npt.NDArray[Any] = codes * scale
        original = self.floats.get(codes_name.removesuffix(_SUFFIX))
        if original is None or tuple(original.dims) != codes.shape:
            return meant
        value = numpy_helper.to_array(original).astype(np.float32)
        return value if (np.abs(value - meant) <= _HALF_STEP * scale).mean() >= _MOST else meant

    def _is_grid_of_pixels(self, tensor: str, scale: str) -> bool:
        """Whether `tensor` is whole numbers times just this scale, so that its quantization changes nothing."""
        producer = self.producers.get(tensor)
        if (
            producer is None
            or producer.op_type not in ("Mul", "DequantizeLinear")
            or producer.input[0] in self.scale_of
        ):
            return False
        factors = [self._array(name) for name in producer.input if name in self.tensors]
        return any(
            factor.size == 1 and np.array_equal(factor.reshape(()), self._array(scale).reshape(()))
            for factor in factors
        )

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self.tensors:
            raise UsageError(f"'{name}' is computed in the graph; expected scales and zero points to be constants.")
        array: npt.NDArray[Any] = numpy_helper.to_array(self.tensors[name]).copy()
        return array

    def _zero_points(self, node: onnx.NodeProto) -> npt.NDArray[Any]:
        if len(node.input) > 2 and node.input[2]:
            return self._array(node.input[2])
        return np.zeros((), np.uint8)

    def _axis(self, node: onnx.NodeProto) -> int:
        return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _only(inputs: Inputs) -> torch.Tensor:
    (value,) = inputs
    assert value is not None
    return value


def _parameter(value: npt.NDArray[Any]) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32, requires_grad=True)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _spread(scale: npt.NDArray[Any], values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """A scale per channel, shaped so that it multiplies `values` along `axis`."""
    if scale.size == 1:
        return scale.reshape(())
    return scale.reshape([-1 if place == axis else 1 for place in range(values.ndim)])


def _largest_code(value: npt.NDArray[Any], scale: npt.NDArray[Any]) -> int:
    return int(np.round(np.abs(value / scale)).max())
