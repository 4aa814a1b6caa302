"""Fake quantization against ONNX's own, and its gradients against what they are derived from."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgewright.export.qat.quantizers import fake_quantize, quantize_bias, quantize_weight, weight_scale, widened


@pytest.mark.parametrize(
    ("kind", "zero_point"), [("uint8", 0), ("uint8", 128), ("uint8", 37), ("int8", 0), ("int8", -128)]
)
def test_values_are_those_of_quantize_and_dequantize_linear(kind: str, zero_point: int) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)'
        f"<float s = {{0.03125}}, {kind} z = {{{zero_point}}}> {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}"
    )
    # Half steps too: both round them to even.
    values = np.arange(-700, 700, dtype=np.float32) / 64
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": values})
    limits = np.iinfo(kind)
    low, high = int(limits.min) - zero_point, int(limits.max) - zero_point
    found = fake_quantize(torch.from_numpy(values), torch.tensor(0.03125), low, high)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_of_a_learned_step(channels_last: bool) -> None:
    values = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    upstream = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    if channels_last:
        values = values.contiguous(memory_format=torch.channels_last)
    values.requires_grad_()
    scale = torch.tensor(0.07, requires_grad=True)
    low, high = -20, 30
    (fake_quantize(values, scale, low, high) * upstream).sum().backward()
    assert values.grad is not None
    assert scale.grad is not None
    steps = values.detach() / 0.07
    inside = (steps.round() >= low) & (steps.round() <= high)
    assert 0 < inside.sum() < inside.numel()
    torch.testing.assert_close(values.grad, torch.where(inside, upstream, 0.0))
    slope = torch.where(inside, steps.round() - steps, steps.round().clamp(low, high))
    expected = (upstream * slope).sum() / (3 * 5 * 6 * (high - low)) ** 0.5
    torch.testing.assert_close(scale.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("axis", "count"), [(0, 4), (1, 3), (None, 1)])
def test_weight_fills_its_codes_and_passes_its_gradient(axis: int | None, count: int) -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = weight_scale(weight, axis, 64)
    assert scale.numel() == count
    codes, meant = quantize_weight(weight, scale, axis, 64)
    rows = codes.movedim(axis, 0).flatten(1) if axis is not None else codes.reshape(1, -1)
    assert (rows.abs().amax(1) == 64).all()
    assert (codes == codes.round()).all()
    assert (meant - weight).abs().max() <= scale.max() / 2 + 1e-6
    meant.sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 1).all()


def test_channel_without_weights_leaves_room_for_its_bias() -> None:
    weight, bias, input_scale = torch.tensor([[1e-9], [0.5]]), torch.tensor([3.0, 3.0]), torch.tensor(0.01)
    scale = weight_scale(weight, 0, 127)
    codes, _ = quantize_bias(bias, scale * input_scale)
    assert codes[0] == 2**31 - 1  # cut off
    wide = widened(scale, bias, input_scale)
    codes, meant = quantize_bias(bias, wide * input_scale)
    assert codes.abs().max() < 2**31 - 1
    torch.testing.assert_close(meant, bias, rtol=1e-3, atol=0.0)
    assert wide[1] == scale[1]
