"""What an engine really executes, layer by layer, as the engine itself reports it after its own optimisation.

The file says what was meant; engines fuse, reorder, cast and fall back to float as they see fit. An INT8 file whose
convolutions run in float is not faster, and an FP16 file that is executed in FP32 is not FP16.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto

__all__ = ["ExecutedLayer", "executed_by_onnxruntime", "executed_by_openvino", "float_layers", "prevailing"]

# What moves or converts tensors and computes nothing; everything else counts as a layer, what is new included.
_NO_LAYERS = {
    *("Cast", "Concat", "DequantizeLinear", "Flatten", "Gather", "Identity", "QuantizeLinear", "ReorderInput"),
    *("ReorderOutput", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    *("Broadcast", "Concatenation", "Const", "Convert", "Dequantize", "FakeQuantize", "Input", "Output", "Reorder"),
    *("ShapeOf", "StridedSlice", "Tile"),
}
_FLOATS = {"fp32", "fp16", "bf16"}

_ONNX_PRECISIONS: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.UINT8: "int8",
    TensorProto.INT8: "int8",
}
# ONNX Runtime's optimisers rename what they touch.
_RENAMED = re.compile(r"^InsertedPrecisionFreeCast_|(_nchwc|_token_\d+)$")


@dataclass(frozen=True)
class ExecutedLayer:
    """One step of the executed graph.

    Attributes:
        name: The layer's name in the file, as far as it can be told; several, joined by `+`, where the engine fused them.
        op: The engine's own name for the operation.
        precision: fp32, fp16, bf16 or int8: that of the tensor it works on; other types by the engine's name.
    """

    name: str
    op: str
    precision: str


def float_layers(layers: Iterable[ExecutedLayer]) -> list[str]:
    """Names of the layers that compute in floating point: convolutions, products, sums, pooling, activations.

    The preface that normalises pixels is among them wherever it is not quantized.
    """
    return [layer.name for layer in layers if layer.op not in _NO_LAYERS and layer.precision in _FLOATS]


def prevailing(layers: Iterable[ExecutedLayer]) -> str:
    """The precision that most convolutions and matrix products are executed in."""
    heavy = Counter(layer.precision for layer in layers if re.search("Conv|Gemm|MatMul", layer.op))
    return heavy.most_common(1)[0][0]


def executed_by_onnxruntime(model: bytes) -> list[ExecutedLayer]:
    """The graph that ONNX Runtime's CPU provider makes of `model`, in execution order.

    ONNX Runtime writes it down without types, so they are followed from the inputs and the constants.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # it warns that the written file fits this machine only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        executed = onnx.load(path, load_external_data=False).graph
    origins = {output: node for node in onnx.load_model_from_string(model).graph.node for output in node.output}
    kinds = {tensor.name: tensor.data_type for tensor in executed.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in executed.input}
    makers = {output: node for node in executed.node for output in node.output}
    layers = []
    for node in executed.node:
        works_on, gives = _types(node, kinds)
        kinds.update(dict.fromkeys(node.output, gives))
        precision = _ONNX_PRECISIONS.get(works_on) or str(TensorProto.DataType.Name(works_on)).lower()
        layers.append(ExecutedLayer(_onnx_name(node, origins, makers), node.op_type, precision))
    return layers


def _types(node: NodeProto, kinds: dict[str, int]) -> tuple[int, int]:
    """Element types that the node works on and gives. Outputs beside the first are of no interest to layers."""
    first = kinds.get(node.input[0], TensorProto.UNDEFINED) if node.input else TensorProto.UNDEFINED
    if node.op_type == "Cast":
        return first, next(attribute.i for attribute in node.attribute if attribute.name == "to")
    if node.op_type == "QuantizeLinear":
        zero_point = node.input[2] if len(node.input) > 2 else ""
        return first, kinds.get(zero_point, TensorProto.UINT8)
    if node.op_type == "DequantizeLinear":
        return first, kinds.get(node.input[1], TensorProto.FLOAT)
    if node.op_type in ("Shape", "Size"):
        return first, TensorProto.INT64
    if node.op_type == "Constant":
        kind = next((a.t.data_type for a in node.attribute if a.name == "value"), TensorProto.FLOAT)
        return kind, kind
    if node.op_type.startswith("QLinear") or (node.op_type.startswith("Q") and node.domain == "com.microsoft"):
        # Some of them (QLinearConcat) begin with the output's scale, so the first input says nothing. Without an
        # output scale and zero point QGemm gives float.
        to_float = node.op_type == "QGemm" and not (len(node.input) > 8 and node.input[8])
        return TensorProto.UINT8, TensorProto.FLOAT if to_float else TensorProto.UINT8
    if node.op_type.endswith("Integer"):
        return TensorProto.INT8, TensorProto.INT32
    if node.op_type in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
        return TensorProto.INT8, TensorProto.FLOAT
    return first, first


def _onnx_name(node: NodeProto, origins: Mapping[str, NodeProto], makers: Mapping[str, NodeProto]) -> str:
    """The name that `node` of the executed graph has in the file.

    Convolutions in ONNX Runtime's own layout are named after the tensor that they, with what is fused to them, give. The
    parts of a decomposed activation have no name; they are called after the layer that feeds them. `origins` are the
    nodes of the file, `makers` those of the executed graph, by the tensors they give.
    """
    name = node.name
    while (shorter := _RENAMED.sub("", name)) != name:
        name = shorter
    if not name:
        feeding = makers.get(node.input[0])
        while feeding is not None and feeding.op_type in _NO_LAYERS:
            feeding = makers.get(feeding.input[0])
        return f"{node.op_type} after {_onnx_name(feeding, origins, makers)}" if feeding else node.op_type
    origin = origins.get(name)
    while origin is not None and origin.op_type != node.op_type:
        origin = origins.get(origin.input[0])
    return origin.name if origin is not None else name


def executed_by_openvino(xml: bytes, weights: bytes, precision_hint: str) -> list[ExecutedLayer]:
    """The graph that OpenVINO's CPU plugin makes of an IR, in execution order.

    Args:
        xml: The IR's .xml file.
        weights: Its .bin file.
        precision_hint: `INFERENCE_PRECISION_HINT`: f32, bf16 or f16.
    """
    from edgewright.runtime.backends.openvino import executed_in
    from edgewright.runtime.silent_openvino import ov

    core = ov.Core()
    model = core.read_model(model=xml, weights=ov.Tensor(np.frombuffer(weights, dtype=np.uint8)))
    settings = {"INFERENCE_PRECISION_HINT": precision_hint, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    meant = {op.get_friendly_name() for op in model.get_ops() if not _quantizes(op)}
    layers = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in op.get_rt_info().items()}
        parts = [name for name in info["originalLayersNames"].split(",") if name in meant]
        kind = info["layerType"]
        if kind == "Eltwise" and not parts:
            kind = "Dequantize"  # a Q/DQ pair's own subtraction and multiplication, which no other layer took in
        layers.append(ExecutedLayer("+".join(parts) or op.get_friendly_name(), kind, executed_in(op)))
    return layers


def _quantizes(op: Any) -> bool:
    """Whether an operation of an IR only takes part in quantizing: constants, FakeQuantize, conversions, and the
    subtraction and multiplication right after a conversion that make floats of integers.
    """
    kind = op.get_type_name()
    if kind in ("Multiply", "Subtract"):
        fed = op.input_value(0).get_node()
        if kind == "Multiply" and fed.get_type_name() == "Subtract":
            fed = fed.input_value(0).get_node()
        return fed.get_type_name() == "Convert" and bool(fed.get_input_element_type(0).is_integral())
    return kind in ("Constant", "Convert", "FakeQuantize")
