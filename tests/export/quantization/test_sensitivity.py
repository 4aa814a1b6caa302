"""The ranking of layers finds the one that was made hard to quantize."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewright.export.quantization.profiles import ORT_X86
from edgewright.export.quantization.sensitivity import divergence
from edgewright.export.quantization.workshop import Workshop

if TYPE_CHECKING:
    from tests.export.quantization.conftest import Digits

pytestmark = pytest.mark.slow


def with_uneven_channels(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """The same function, but one channel of an activation carries values a thousand times as large as the others.

    The convolution before it gives a thousand times as much there, and those behind it take a thousandth: a positive
    factor passes through the ReLU in between. Returned with the names of those that read the activation.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = list(changed.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    squeezed = [node for node in nodes if node.op_type == "Relu" and makers[node.input[0]].op_type == "Conv"][4]
    readers = [node for node in nodes if squeezed.output[0] in node.input]
    assert readers
    assert all(node.op_type == "Conv" for node in readers)
    maker = makers[squeezed.input[0]]
    scaled = [(maker.input[1], 0, 1000.0), (maker.input[2], 0, 1000.0)]
    for name, axis, factor in [*scaled, *((reader.input[1], 1, 0.001) for reader in readers)]:
        values = numpy_helper.to_array(tensors[name]).copy()
        np.moveaxis(values, axis, 0)[0] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    return changed, {reader.name for reader in readers}


def test_layers_that_read_uneven_channels_are_the_worst(digits: Digits) -> None:
    model, readers = with_uneven_channels(digits.model)
    damage = Workshop(model, digits.spec, digits.known[:32]).damage(ORT_X86)
    assert damage[0].name in readers
    others = [layer.divergence for layer in damage if layer.name not in readers]
    assert damage[0].divergence > 3 * others[0]


def test_divergence_is_zero_for_equals_and_grows_with_the_difference() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    assert divergence(logits, logits) == pytest.approx(0, abs=1e-9)
    assert divergence(logits, logits + 3) == pytest.approx(0, abs=1e-6)
    assert 0 < divergence(logits, 1.1 * logits) < divergence(logits, -logits)
