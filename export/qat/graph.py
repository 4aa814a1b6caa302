"""A quantized ONNX graph that can be trained: run by torch, with weights and scales that learn, and written back.

What is trained is the very graph that engines execute, so nothing has to be translated between a torch module and ONNX,
and no exporter has a chance to put a quantizer elsewhere.
"""

from __future__ import annotations

import copy

import onnx
import torch
from onnx import numpy_helper

from edgewright.export.qat.quantizers import quantize_bias, quantize_weight, weight_scale, widened
from edgewright.export.qat.reading import Activation, read_program

__all__ = ["TrainableGraph"]


class TrainableGraph:
    """A quantized graph as a function of pixels, with parameters.

    Weights begin with the values that they have in the float graph; each is rounded to int8 at every use, with the
    scale that its largest value asks for. Activations learn their scales; their zero points carry meaning (at the
    lowest code they are the ReLU that the quantizer has absorbed) and are not learned.

    Args:
        float_model: What `quantized` was made from. A weight that is another there (as the first convolution's is, if
            the normalisation of pixels has moved into it) begins with the value that its codes stand for.
        quantized: With QuantizeLinear and DequantizeLinear as ONNX Runtime's quantizer puts them.

    Raises:
        UsageError: an operator that cannot be trained, or a graph that is not quantized as it should be.
    """

    def __init__(self, float_model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self._model = quantized
        self._program = read_program(float_model, quantized)
        self._input, self._output = quantized.graph.input[0].name, quantized.graph.output[0].name
        last = {name: number for number, step in enumerate(self._program.steps) for name in step.inputs}
        last.pop(self._output, None)
        self._done: list[list[str]] = [[] for _ in self._program.steps]
        for name, number in last.items():
            self._done[number].append(name)

    @property
    def weights(self) -> list[torch.Tensor]:
        """Weights and biases, to be trained."""
        program = self._program
        weights = [weight.value for weight in program.weights.values()]
        return weights + [bias.value for bias in program.biases.values()] + list(program.plain.values())

    @property
    def log_scales(self) -> list[torch.Tensor]:
        """Logarithms of the activations' scales, to be trained."""
        return [activation.log_scale for activation in self._program.activations.values()]

    @property
    def activations(self) -> list[Activation]:
        """What is quantized between the layers."""
        return list(self._program.activations.values())

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits float32 (N, classes) of uint8 pixels, laid out as the graph's input is: (N, height, width, 3)."""
        values: dict[str, torch.Tensor | None] = {**self._program.constants, **self._parameters()}
        values[self._input] = pixels
        for step, done in zip(self._program.steps, self._done, strict=True):
            result = step.compute([values[name] if name else None for name in step.inputs])
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))
            for name in done:  # or a whole batch would be kept of every layer, in evaluation too
                values.pop(name, None)
        logits = values[self._output]
        assert logits is not None
        return logits

    def to_onnx(self) -> onnx.ModelProto:
        """The same graph with what has been learned: weights, biases, and all scales that follow from them."""
        model = copy.deepcopy(self._model)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}

        def write(name: str, value: torch.Tensor) -> None:
            old = tensors[name]
            array = value.detach().numpy().astype(numpy_helper.to_array(old).dtype)
            old.CopyFrom(numpy_helper.from_array(array.reshape(tuple(old.dims)), name))

        program, scales = self._program, self._weight_scales()
        for name, activation in program.activations.items():
            write(name, activation.log_scale.exp())
            if activation.zero_point_name is not None:
                write(activation.zero_point_name, torch.tensor(activation.zero_point))
        for name, weight in program.weights.items():
            codes, _ = quantize_weight(weight.value, scales[name], weight.axis, weight.limit)
            write(weight.scale, scales[name])
            write(name, weight.value if weight.paired else codes)
        for name, bias in program.biases.items():
            scale = self._input_scale(bias.input_scale) * scales[bias.weight]
            write(bias.scale, scale)
            write(name, quantize_bias(bias.value, scale)[0])
        for name, value in program.plain.items():
            write(name, value)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _parameters(self) -> dict[str, torch.Tensor]:
        """What is learned, as the quantized graph sees it, by the name of the initializer."""
        program, scales = self._program, self._weight_scales()
        values = dict(program.plain)
        for name, weight in program.weights.items():
            values[name] = quantize_weight(weight.value, scales[name], weight.axis, weight.limit)[1]
        for name, bias in program.biases.items():
            scale = self._input_scale(bias.input_scale) * scales[bias.weight]
            values[name] = quantize_bias(bias.value, scale)[1]
        return values

    def _weight_scales(self) -> dict[str, torch.Tensor]:
        program = self._program
        scales = {
            name: weight_scale(weight.value, weight.axis, weight.limit) for name, weight in program.weights.items()
        }
        for bias in program.biases.values():
            scales[bias.weight] = widened(scales[bias.weight], bias.value, self._input_scale(bias.input_scale))
        return scales

    def _input_scale(self, name: str) -> torch.Tensor:
        fixed = self._program.fixed_scales.get(name)
        return self._program.activations[name].log_scale.detach().exp() if fixed is None else fixed
