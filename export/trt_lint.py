"""What TensorRT would reject in an ONNX file, told before anyone carries it to a device.

The rules are those of TensorRT 8.6, the strictest of the supported versions: what it takes, later ones up to 11 take as
well. Sources: docs/operators.md and builtin_op_importers.cpp of https://github.com/onnx/onnx-tensorrt (branches 8.5-GA to
10.15-GA); "Working with Quantized Types" and `DataType` of NVIDIA's documentation; for INT32 biases
https://github.com/onnx/onnx-tensorrt/issues/850 and https://github.com/microsoft/onnxruntime/issues/14229.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["lint_trt"]

NEWEST_OPSET, OLDEST_OPSET = 17, 9

# "Supported" in docs/operators.md for 8.5, the last list before 8.6; control flow, sequences and recurrence left out:
# an image classifier that has them is not one of ours.
_OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
        Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
        Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN LeakyRelu Less
        LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg
        NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RoiAlign Round
        ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
        Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
        """,
    )
)
_TYPES = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.BOOL, TensorProto.UINT8),
    }
)
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class _Graph:
    """A graph and what the rules ask of it: constants, types and makers by tensor."""

    model: onnx.ModelProto
    constants: dict[str, TensorProto]
    kinds: dict[str, int]
    makers: dict[str, NodeProto]


def lint_trt(model: onnx.ModelProto) -> list[str]:
    """Everything in `model` that TensorRT 8.6 to 11 would not take, a sentence each; nothing, if it takes it.

    Each says where, what was found, and what is expected.
    """
    findings = [*_opsets(model), *_external(model)]
    if findings:
        return findings  # without its opset or its data, nothing else can be read as it is meant
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        return [f"The file is not valid ONNX: {error}"]
    graph = _read(inferred)
    rules = (_operators, _types, _dynamic_axes, _uint8, _reductions, _pooling, _quantization)
    return [finding for rule in rules for finding in rule(graph)]


def _read(model: onnx.ModelProto) -> _Graph:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {name: tensor.data_type for name, tensor in constants.items()}
    makers = {name: node for node in model.graph.node for name in node.output}
    return _Graph(model, constants, kinds, makers)


def _at(node: NodeProto) -> str:
    return f"node '{node.name or ', '.join(node.output)}' ({node.op_type})"


def _kind(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _opsets(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield f"The file uses operators of '{entry.domain}'; expected ONNX's own only."
        elif not OLDEST_OPSET <= entry.version <= NEWEST_OPSET:
            yield f"The file has opset {entry.version}; expected {OLDEST_OPSET} to {NEWEST_OPSET}, the newest that TensorRT 8.6 reads."


def _external(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"The data of '{tensor.name}' is in another file; expected it inside."


def _operators(graph: _Graph) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type not in _OPERATORS:
            yield f"{_at(node)}: TensorRT has no such operator; expected one of docs/operators.md of onnx-tensorrt."


def _types(graph: _Graph) -> Iterator[str]:
    for name, kind in graph.kinds.items():
        if kind not in _TYPES:
            yield f"Tensor '{name}' is {_kind(kind)}; expected float, float16, int8, int32, int64 or bool."
    for name, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.INT64:
            values = numpy_helper.to_array(tensor)
            beyond = values[(values < _INT32.min) | (values > _INT32.max)]
            if beyond.size:
                yield f"Constant '{name}' holds {beyond[0]}; expected what fits into int32, to which TensorRT 8 clamps it."


def _dynamic_axes(graph: _Graph) -> Iterator[str]:
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        for axis, length in enumerate(_shape(value)):
            if axis > 0 and not length:
                yield f"Tensor '{value.name}' has an axis {axis} of no fixed length; expected that of the batch only."


def _shape(value: ValueInfoProto) -> list[int]:
    """Axes; 0 stands for those without a fixed length."""
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def _uint8(graph: _Graph) -> Iterator[str]:
    """UINT8 is a type of inputs and outputs only; an input has to become float or float16 before all else."""
    inputs = {value.name for value in graph.model.graph.input if value.name not in graph.constants}
    for node in graph.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue  # they have rules of their own
        for name in node.input:
            if graph.kinds.get(name) != TensorProto.UINT8:
                continue
            if name not in inputs or node.op_type != "Cast":
                yield f"{_at(node)}: works on the uint8 tensor '{name}'; expected a Cast of the network's input before all else."
            elif graph.kinds.get(node.output[0]) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
                found = _kind(graph.kinds.get(node.output[0], TensorProto.UNDEFINED))
                yield f"{_at(node)}: makes {found} of the uint8 tensor '{name}'; expected float or float16."


def _reductions(graph: _Graph) -> Iterator[str]:
    """Of ReduceSum; that the others have their axes in an attribute, ONNX's checker sees to up to opset 17."""
    for node in graph.model.graph.node:
        if node.op_type == "ReduceSum" and len(node.input) > 1 and node.input[1] not in graph.constants:
            yield f"{_at(node)}: its axes are computed; expected a constant."


def _pooling(graph: _Graph) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
            yield f"{_at(node)}: gives indices; expected the maxima only."


def _quantization(graph: _Graph) -> Iterator[str]:
    """Explicit quantization: symmetric, int8, per channel for weights only, scales that are known when building."""
    for node in graph.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from (f"{_at(node)}: {finding}" for finding in _quantizer(node, graph))


def _quantizer(node: NodeProto, graph: _Graph) -> Iterator[str]:
    data = node.input[0]
    if node.op_type == "DequantizeLinear" and graph.kinds.get(data) != TensorProto.INT8:
        found = _kind(graph.kinds.get(data, TensorProto.UNDEFINED))
        advice = "; a bias stays in float" if found == "int32" else ""
        yield f"its input '{data}' is {found}; expected int8{advice}."
    scale = graph.constants.get(node.input[1])
    if scale is None:
        yield f"its scale '{node.input[1]}' is computed; expected a constant."
        return
    if scale.data_type != TensorProto.FLOAT:
        yield f"its scale is {_kind(scale.data_type)}; expected float, as which TensorRT 8 reads it."
        return
    scales: npt.NDArray[np.float32] = numpy_helper.to_array(scale)
    if not (np.isfinite(scales) & (scales > 0)).all():
        worst = scales[~(np.isfinite(scales) & (scales > 0))][0]
        yield f"it has the scale {worst}; expected a positive, finite number."
    yield from _zero_point(node, graph, scales.size)
    if scales.size > 1:
        yield from _channels(node, graph, scales.size)


def _zero_point(node: NodeProto, graph: _Graph, scales: int) -> Iterator[str]:
    if len(node.input) < 3 or not node.input[2]:
        yield "it has no zero point; expected one of int8 zeros, which TensorRT 8 does not do without."
        return
    tensor = graph.constants.get(node.input[2])
    if tensor is None:
        yield f"its zero point '{node.input[2]}' is computed; expected a constant."
        return
    values = numpy_helper.to_array(tensor)
    if tensor.data_type != TensorProto.INT8:
        yield f"its zero point is {_kind(tensor.data_type)}; expected int8."
    if values.any():
        yield f"it has the zero point {values[values != 0].flat[0]}; expected 0: TensorRT quantizes symmetrically."
    if values.size != scales:
        yield f"it has {values.size} zero points and {scales} scales; expected as many of one as of the other."


def _channels(node: NodeProto, graph: _Graph, scales: int) -> Iterator[str]:
    """Several scales are for weights: constants, or constants that were quantized just before."""
    source = node.input[0]
    if source in graph.makers and graph.makers[source].op_type == "QuantizeLinear":
        source = graph.makers[source].input[0]
    if source not in graph.constants:
        yield f"it has {scales} scales for the activation '{source}'; expected one: only weights are quantized per channel."
        return
    axis = next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == "axis"), 1)
    lengths = graph.constants[source].dims
    if not -len(lengths) <= axis < len(lengths) or lengths[axis] != scales:
        yield f"it has {scales} scales along axis {axis} of '{source}', whose shape is {list(lengths)}; expected one for each channel."
