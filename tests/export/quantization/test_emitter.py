"""Q/DQ graphs: what each engine wants, computed by the engines, against the float graph."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgewright.export.quantization.emitter import layers
from edgewright.export.quantization.pixels import PixelForm, centre_pixels, preface
from edgewright.export.quantization.profiles import ORT_ARM, ORT_X86, PROFILES, TRT, Profile
from edgewright.export.quantization.ranges import METHODS
from edgewright.export.quantization.workshop import Workshop
from edgewright.export.simulate import simulate
from edgewright.export.trt_lint import lint_trt

if TYPE_CHECKING:
    from tests.export.quantization.conftest import Digits

every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=str)


def execute(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def convolution(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def convolutions(model: onnx.ModelProto) -> list[str]:
    found = {node.name for node in model.graph.node if node.op_type == "Conv"}
    return [name for name in layers(model) if name in found]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_pixels_as_the_quantized_tensor_change_next_to_nothing(digits: Digits, layout: str, symmetric: bool) -> None:
    form = PixelForm("NCHW" if layout == "NCHW" else "NHWC", symmetric)
    centred = centre_pixels(digits.model, digits.spec, form)
    assert centred is not None
    pixels = digits.pixels if layout == "NHWC" else np.ascontiguousarray(digits.pixels.transpose(0, 3, 1, 2))
    # SqueezeNet's first convolution pads nothing, so that nothing at all is lost.
    np.testing.assert_allclose(simulate(centred, pixels), simulate(digits.model, digits.pixels), atol=2e-3, rtol=1e-3)


@every_profile
def test_quantized_graph_answers_as_the_float_one(digits: Digits, workshop: Workshop, profile: Profile) -> None:
    reference = simulate(digits.model, digits.pixels).argmax(1)
    quantized = workshop.quantize(profile, workshop.methods(profile)[0][0])
    assert (simulate(quantized, digits.pixels).argmax(1) == reference).mean() >= 0.97


def test_integer_kernels_of_this_cpu_compute_what_the_graph_says(digits: Digits, workshop: Workshop) -> None:
    """Reduced range keeps a CPU without VNNI from saturating."""
    quantized = workshop.quantize(ORT_X86, "mse")
    simulated, executed = simulate(quantized, digits.pixels), execute(quantized, digits.pixels)
    assert (simulated.argmax(1) == executed.argmax(1)).mean() >= 0.99
    assert np.abs(simulated - executed).mean() < 0.05 * np.abs(simulated).mean()


def test_types_are_those_of_the_profile(workshop: Workshop) -> None:
    for profile, zero_type in ((ORT_X86, np.uint8), (ORT_ARM, np.int8), (TRT, np.int8)):
        graph = workshop.quantize(profile, "minmax").graph
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        activations = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in tensors]
        assert len(activations) >= 10
        assert all(
            tensors[node.input[2]].dtype == zero_type and tensors[node.input[1]].ndim == 0 for node in activations
        )
        biases = [
            node
            for node in graph.node
            if node.op_type == "DequantizeLinear" and tensors.get(node.input[0], np.zeros(0)).dtype == np.int32
        ]
        assert bool(biases) == profile.quantize_bias
    assert lint_trt(workshop.quantize(TRT, "minmax")) == []


def test_weights_are_quantized_by_output_channel(workshop: Workshop) -> None:
    graph = workshop.quantize(ORT_X86, "minmax").graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = [
        tensors[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and tensors.get(node.input[0], np.zeros(0)).ndim == 4
    ]
    assert len(scales) >= 10
    assert all(scale.ndim == 1 and len(np.unique(scale)) > 1 for scale in scales)


def test_logits_are_not_rounded_to_256_values(digits: Digits, workshop: Workshop) -> None:
    for profile in PROFILES.values():
        quantized = workshop.quantize(profile, "minmax")
        makers = {name: node.op_type for node in quantized.graph.node for name in node.output}
        assert makers["logits"] != "DequantizeLinear"


@every_profile
def test_named_layers_stay_in_float(digits: Digits, workshop: Workshop, profile: Profile) -> None:
    kept = convolutions(digits.model)[:3]
    quantized = workshop.quantize(profile, "mse", kept)
    makers = {name: node for node in quantized.graph.node for name in node.output}
    for name in kept:
        node = next(node for node in quantized.graph.node if node.name == name)
        assert makers.get(node.input[1]) is None
    whole = workshop.quantize(profile, "mse")
    weights = kinds(whole)["DequantizeLinear"] - kinds(quantized)["DequantizeLinear"]
    assert weights >= len(kept)


def test_layer_in_float_between_quantized_ones_does_not_hurt(digits: Digits, workshop: Workshop) -> None:
    """ONNX Runtime's quantizer would take the range in front of the activation for what comes out of it."""
    reference = simulate(digits.model, digits.pixels)
    whole = np.abs(simulate(workshop.quantize(ORT_X86, "mse"), digits.pixels) - reference).mean()
    for name in convolutions(digits.model)[1:6:2]:
        apart = np.abs(simulate(workshop.quantize(ORT_X86, "mse", [name]), digits.pixels) - reference).mean()
        assert apart < 1.3 * whole


def test_preface_stays_in_float_where_the_pixel_cannot_be_the_tensor(
    digits: Digits, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Cast" not in kinds(workshop.quantize(ORT_X86, "mse"))
    assert "normalises its pixels" not in capsys.readouterr().err
    without_bias, padded = copy.deepcopy(digits.model), copy.deepcopy(digits.model)
    del convolution(without_bias).input[2]
    # It pads with what the mean colour becomes, as far from the grey that would take its place as can be.
    axes = {attribute.name: attribute for attribute in convolution(padded).attribute}
    axes["pads"].ints[:] = [40, 40, 0, 0]
    del padded.graph.value_info[:]
    for model, spec, why in (
        (without_bias, digits.spec, "one convolution that has a bias"),
        (padded, digits.spec.model_copy(update={"mean": (0.0, 0.0, 1.0)}), "would differ by"),
    ):
        entrance = preface(Workshop(model, spec, digits.known[:32]).quantize(ORT_X86, "minmax"))
        assert {"Cast", "Mul", "Add"} <= {node.op_type for node in entrance}
        assert why in capsys.readouterr().err


def test_methods_are_ranked_by_what_they_do_to_the_logits(workshop: Workshop) -> None:
    found = workshop.methods(TRT)
    assert {method for method, _ in found} == set(METHODS)
    errors = [error for _, error in found]
    assert errors == sorted(errors)
    assert 0 <= errors[0] < 0.2
