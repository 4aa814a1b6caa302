"""The pixel as the quantized tensor: INT8 graphs that take uint8 without a float preface.

Normalised pixels are (pixel / 255 - mean) / std, per channel. Written as (pixel - centre) / (255 sigma) with one centre
and one sigma for all channels, scale 1 / (255 sigma) and zero point `centre` *are* the quantization of the input, and
nothing is left to compute before the first convolution. What differs between channels moves into that convolution: its
weights are scaled by sigma / std, and the constant rest goes into its bias. Only where the convolution pads with zeros
is this not exact: it now pads with a grey pixel, where it padded with the mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.runtime.manifest import Layout
from edgewright.runtime.preprocess import Preprocess

__all__ = ["Base", "Grid", "PixelForm", "centre_pixels", "grid_of", "preface"]

_SCALE, _ZERO_POINT = "pixel_scale", "pixel_zero_point"


@dataclass(frozen=True)
class Grid:
    """The input's quantization: value = (pixel - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class PixelForm:
    """How a profile wants its input: `layout` of the uint8 tensor, and whether zero must be quantized as 128."""

    layout: Layout
    symmetric: bool


@dataclass(frozen=True)
class Base:
    """A float graph to be quantized: `layout` of its uint8 input, and the grid that its pixels are already on.

    None: its own preface normalises them in float.
    """

    model: onnx.ModelProto
    layout: Layout
    grid: Grid | None


def grid_of(spec: Preprocess, *, symmetric: bool) -> Grid:
    """The grid nearest to the true normalisation; around 128 where int8 must be symmetric."""
    sigma = float(np.mean(spec.std))
    return Grid(1 / (255 * sigma), 128 if symmetric else round(255 * float(np.mean(spec.mean))))


def preface(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes between the input and the first convolution or matrix product, which normalise the pixels."""
    nodes = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            break
        nodes.append(node)
    return nodes


def centre_pixels(model: onnx.ModelProto, spec: Preprocess, form: PixelForm) -> onnx.ModelProto | None:
    """`model` with another preface: uint8 pixels, dequantized (or, if symmetric, cast, shifted and scaled).

    Returns:
        A new model, or None if the preface does not lead into a single convolution with a bias.
    """
    old = preface(model)
    produced = old[-1].output[0] if old else INPUT_NAME
    readers = [node for node in model.graph.node if produced in node.input]
    if len(readers) != 1 or readers[0].op_type != "Conv" or len(readers[0].input) != 3:
        return None
    grid = grid_of(spec, symmetric=form.symmetric)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weight, bias = (tensors[name] for name in readers[0].input[1:])
    _move_into(weight, bias, spec, grid)
    del graph.node[: len(old)]
    _declare_input(graph, form, spec)
    planes = [] if form.layout == "NCHW" else [_transposed("pixel_values" if form.symmetric else INPUT_NAME)]
    entrance: list[onnx.NodeProto]
    if form.symmetric:
        # TensorRT wants the cast before anything else.
        floats = "pixel_values" if planes else "pixel_planes"
        entrance = [
            helper.make_node("Cast", [INPUT_NAME], [floats], "pixel_cast", to=onnx.TensorProto.FLOAT),
            *planes,
            helper.make_node("Sub", ["pixel_planes", "pixel_centre"], ["pixel_centred"], "pixel_sub"),
            helper.make_node("Mul", ["pixel_centred", _SCALE], [produced], "pixel_mul"),
        ]
        zero = numpy_helper.from_array(np.float32(grid.zero_point), "pixel_centre")
    else:
        inputs = ["pixel_planes" if planes else INPUT_NAME, _SCALE, _ZERO_POINT]
        entrance = [*planes, helper.make_node("DequantizeLinear", inputs, [produced], "pixel_dequantize")]
        zero = numpy_helper.from_array(np.uint8(grid.zero_point), _ZERO_POINT)
    graph.initializer.extend([numpy_helper.from_array(np.float32(grid.scale), _SCALE), zero])
    for position, node in enumerate(entrance):
        graph.node.insert(position, node)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    values = [value for value in graph.value_info if value.name not in {name for node in old for name in node.output}]
    del graph.value_info[:]
    graph.value_info.extend(values)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _declare_input(graph: onnx.GraphProto, form: PixelForm, spec: Preprocess) -> None:
    declared = graph.input[0].type.tensor_type.shape.dim
    axes = (spec.crop, spec.crop, 3) if form.layout == "NHWC" else (3, spec.crop, spec.crop)
    for dimension, axis in zip(list(declared)[1:], axes, strict=True):
        dimension.dim_value = axis


def _transposed(source: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], ["pixel_planes"], "pixel_transpose", perm=[0, 3, 1, 2])


def _move_into(weight: onnx.TensorProto, bias: onnx.TensorProto, spec: Preprocess, grid: Grid) -> None:
    """Give the convolution's weights (out, in, height, width) and bias (out) what differs between channels."""
    kernel = numpy_helper.to_array(weight).astype(np.float64)
    offset = numpy_helper.to_array(bias).astype(np.float64)
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    # normalised = gain * (pixel - zero_point) * scale + rest
    gain = 1 / (255 * grid.scale * std)
    rest = (grid.zero_point / 255 - mean) / std
    offset = offset + np.einsum("oihw,i->o", kernel, rest)
    kernel = kernel * gain[None, :, None, None]
    weight.CopyFrom(numpy_helper.from_array(kernel.astype(np.float32), weight.name))
    bias.CopyFrom(numpy_helper.from_array(offset.astype(np.float32), bias.name))
