"""The trainable graph: it computes what engines compute, and what it has learned is in the file that it writes."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgewright.export.qat.graph import TrainableGraph
from edgewright.runtime.errors import UsageError

from .conftest import Execute, Quantize, Split

PROFILES = ("x86", "arm", "trt")


def logits_of(
    graph: TrainableGraph, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with torch.inference_mode():
        return np.asarray(graph(torch.from_numpy(pixels)).numpy())


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("profile", PROFILES)
def test_computes_what_onnx_runtime_computes(
    profile: str, float_model: onnx.ModelProto, quantize: Quantize, execute: Execute, digits: dict[str, Split]
) -> None:
    quantized, pixels = quantize(profile), digits["val"][0]
    expected = execute(quantized, pixels)
    found = logits_of(TrainableGraph(float_model, quantized), pixels)
    # A step of the logits' own quantization is about 0.02 of their spread.
    assert np.abs(found - expected).mean() < 0.01 * expected.std()
    assert np.abs(execute(float_model, pixels) - expected).mean() > 0.01 * expected.std()


@pytest.mark.parametrize("profile", PROFILES)
def test_untrained_graph_is_written_as_it_was(profile: str, float_model: onnx.ModelProto, quantize: Quantize) -> None:
    quantized = quantize(profile)
    written = TrainableGraph(float_model, quantized).to_onnx()
    assert written.graph.node == quantized.graph.node
    before, after = arrays(quantized), arrays(written)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (after[name].dtype, after[name].shape) == (array.dtype, array.shape)
        if array.dtype == np.int8:
            assert np.abs(after[name].astype(int) - array).max() <= 1
        else:
            np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("part", ["scales", "zero points", "weights", "biases"])
def test_what_changes_is_written_back(
    profile: str,
    part: str,
    float_model: onnx.ModelProto,
    quantize: Quantize,
    execute: Execute,
    digits: dict[str, Split],
) -> None:
    if part == "zero points" and profile == "trt":
        pytest.skip("symmetric: all are 0")
    quantized, pixels = quantize(profile), digits["val"][0]
    graph, generator = TrainableGraph(float_model, quantized), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for activation in graph.activations:
            if part == "scales":
                activation.log_scale += 0.4 * torch.randn((), generator=generator)
            elif part == "zero points":
                activation.zero_point = min(activation.codes[1], activation.zero_point + 40)
        for value in graph.weights:
            if (value.dim() > 1) == (part == "weights") and part in ("weights", "biases"):
                value += (
                    (1.0 if part == "biases" else 0.3) * value.std() * torch.randn(value.shape, generator=generator)
                )
    found, executed, before = logits_of(graph, pixels), execute(graph.to_onnx(), pixels), execute(quantized, pixels)
    assert np.abs(executed - before).mean() > 0.05 * before.std()
    assert np.abs(found - executed).mean() < 0.02 * found.std()


def test_reduced_range_is_kept_and_full_range_too(float_model: onnx.ModelProto, quantize: Quantize) -> None:
    for profile, limit in (("x86", 64), ("arm", 127)):
        graph = TrainableGraph(float_model, quantize(profile))
        with torch.no_grad():
            for value in graph.weights:
                value *= 5
        codes = [
            array.astype(int) for array in arrays(graph.to_onnx()).values() if array.dtype == np.int8 and array.ndim > 1
        ]
        assert codes
        assert {int(np.abs(array).max()) for array in codes} == {limit}


def test_bias_has_the_scale_of_its_input_times_that_of_its_weight(
    float_model: onnx.ModelProto, quantize: Quantize
) -> None:
    graph = TrainableGraph(float_model, quantize("x86"))
    with torch.no_grad():
        for value in (*graph.weights, *graph.log_scales):
            value *= 1.1
    model = graph.to_onnx()
    tensors, producers = arrays(model), {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) == 3]
    assert len(layers) == 6
    for layer in layers:
        inputs, weight, bias = (tensors[producers[name].input[1]] for name in layer.input)
        np.testing.assert_array_equal(bias.reshape(-1), (inputs * weight).reshape(-1))


def test_layers_in_float_learn_too(float_model: onnx.ModelProto) -> None:
    graph = TrainableGraph(float_model, float_model)
    assert len(graph.weights) == 12
    graph(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)).sum().backward()
    assert all(value.grad is not None for value in graph.weights)


def with_pixels_as_quantized_tensor(model: onnx.ModelProto) -> onnx.ModelProto:
    """The preface of a quantized graph replaced by Transpose and DequantizeLinear, whose scale is the pixels' own."""
    changed = copy.deepcopy(model)
    graph = changed.graph
    end = next(
        number
        for number, node in enumerate(graph.node)
        if node.op_type == "QuantizeLinear" and "weight" not in node.input[0]
    )
    pair = [graph.node[end], next(node for node in graph.node if node.input[0] == graph.node[end].output[0])]
    output = pair[1].output[0]
    old = [node for node in graph.node if node.op_type in ("Transpose", "Cast", "Mul", "Add", "Sub")][:4]
    old = [node for node in old if list(graph.node).index(node) < end]
    for node in (*pair, *old):
        graph.node.remove(node)
    graph.initializer.extend(
        [numpy_helper.from_array(np.float32(1 / 64), "grid"), numpy_helper.from_array(np.uint8(128), "centre")]
    )
    graph.node.insert(0, helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]))
    graph.node.insert(1, helper.make_node("DequantizeLinear", ["planes", "grid", "centre"], [output]))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def test_scale_of_pixels_is_fixed(
    float_model: onnx.ModelProto, quantize: Quantize, execute: Execute, digits: dict[str, Split]
) -> None:
    quantized = quantize("x86")
    direct = with_pixels_as_quantized_tensor(quantized)
    graph, pixels = TrainableGraph(float_model, direct), digits["val"][0]
    assert len(graph.log_scales) == len(TrainableGraph(float_model, quantized).log_scales) - 1
    with torch.no_grad():
        for value in graph.weights:
            value *= 1.05
    model = graph.to_onnx()
    assert arrays(model)["grid"] == np.float32(1 / 64)
    found, executed = logits_of(graph, pixels), execute(model, pixels)
    assert np.abs(found - executed).mean() < 0.02 * found.std()


def test_weight_that_is_another_in_the_float_graph_begins_with_its_codes(
    float_model: onnx.ModelProto, quantize: Quantize, execute: Execute, digits: dict[str, Split]
) -> None:
    other = copy.deepcopy(float_model)
    stem = next(tensor for tensor in other.graph.initializer if list(tensor.dims) == [12, 3, 3, 3])
    stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(3), stem.name))
    quantized, pixels = quantize("x86"), digits["val"][0]
    expected = execute(quantized, pixels)
    found = execute(TrainableGraph(other, quantized).to_onnx(), pixels)
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_scale_per_channel_of_an_activation_is_refused(float_model: onnx.ModelProto, quantize: Quantize) -> None:
    quantized = quantize("x86")
    node = next(node for node in quantized.graph.node if node.op_type == "QuantizeLinear")
    for name, kind in ((node.input[1], np.float32), (node.input[2], np.uint8)):
        tensor = next(tensor for tensor in quantized.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.ones(3, kind), name))
    with pytest.raises(UsageError, match="scale per channel"):
        TrainableGraph(float_model, quantized)


def test_channel_whose_weights_vanish_keeps_its_bias(float_model: onnx.ModelProto, quantize: Quantize) -> None:
    graph = TrainableGraph(float_model, quantize("x86"))
    with torch.no_grad():
        for value in graph.weights:
            if value.dim() == 4:
                value[0] = 1e-9
            elif value.dim() == 1:
                value[0] = 3.0
    model = graph.to_onnx()
    tensors = arrays(model)
    biases = [
        node for node in model.graph.node if node.input[0] in tensors and tensors[node.input[0]].dtype == np.int32
    ]
    assert len(biases) == 6
    for node in biases:
        codes, scale = tensors[node.input[0]], tensors[node.input[1]]
        assert codes[0] * scale.reshape(-1)[0] == pytest.approx(3.0, rel=1e-3)
