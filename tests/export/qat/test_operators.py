"""Each operator against ONNX Runtime, in the forms that torch and ONNX see differently."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgewright.export.qat.graph import TrainableGraph
from edgewright.export.qat.operators import OPERATORS
from edgewright.runtime.errors import UsageError

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\nagraph (float[N,3,7,9] x) => (float[?] y)\n'


def numbers(count: int) -> str:
    return ", ".join(f"{number:.3f}" for number in np.random.default_rng(count).normal(size=count))


BODIES = {
    "AveragePool": "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>(x)",
    "AveragePool, borders not counted": "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
    "BatchNormalization": "<float[3] w = {1.0, 2.0, 3.0}, float[3] v = {0.5, 1.0, 2.0}>"
    "{ y = BatchNormalization<epsilon=0.1>(x, w, v, w, v) }",
    "Cast": "{ a = Cast<to=6>(x) y = Cast<to=1>(a) }",
    "Clip": "<float high = {0.5}>{ y = Clip(x, , high) }",
    "Concat": "{ y = Concat<axis=1>(x, x) }",
    "Conv, padded on one side": "<float[3,1,2,2] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}>"
    "{ y = Conv<pads=[0,0,1,1], group=3>(x, w, b) }",
    "Conv, dilated": "<float[2,3,1,2] w = {1,2,3,4,5,6,7,8,9,10,11,12}>{ y = Conv<strides=[2,1], dilations=[1,2], pads=[1,2,1,2]>(x, w) }",
    "Flatten, Gemm": f"<float[189,2] w = {{{numbers(378)}}}, float[2] b = {{1,2}}>"
    "{ a = Flatten(x) y = Gemm<alpha=0.5, beta=2.0>(a, w, b) }",
    "Gather": "<int64[2,2] i = {0,-1,2,1}>{ y = Gather<axis=2>(x, i) }",
    "GlobalAveragePool": "y = GlobalAveragePool(x)",
    "HardSigmoid": "y = HardSigmoid<alpha=0.3, beta=0.4>(x)",
    "HardSwish": "y = HardSwish(x)",
    "Identity, Tanh, Sigmoid": "{ a = Identity(x) b = Tanh(a) y = Sigmoid(b) }",
    "MatMul": f"<float[9,2] w = {{{numbers(18)}}}>{{ y = MatMul(x, w) }}",
    "MaxPool": "y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)",
    "MaxPool, padded on one side": "y = MaxPool<kernel_shape=[2,3], strides=[2,2], pads=[0,1,1,0], dilations=[2,1]>(x)",
    "Mul, Add, Sub, Div": "<float[1,3,1,1] c = {1,2,4}>{ a = Mul(x, c) b = Add(a, c) d = Sub(b, x) y = Div(d, c) }",
    "Pad": "<int64[8] p = {0,0,1,2,0,0,3,4}, float f = {7.0}>{ y = Pad(x, p, f) }",
    "ReduceMean": "y = ReduceMean<axes=[2,3], keepdims=0>(x)",
    "Relu": "y = Relu(x)",
    "Reshape": "<int64[3] s = {0,-1,9}>{ y = Reshape(x, s) }",
    "Softmax": "y = Softmax<axis=1>(x)",
    "Split, equal parts": "{ a, b, c = Split<axis=1>(x) y = Sub(a, c) }",
    "Split": "<int64[2] s = {2,7}>{ a, y = Split<axis=3>(x, s) }",
    "Squeeze, Unsqueeze": "<int64[2] i = {0,-1}, int64[1] j = {0}>{ a = Unsqueeze(x, i) y = Squeeze(a, j) }",
    "Transpose": "y = Transpose<perm=[0,2,3,1]>(x)",
}


def parsed(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + (body if "{ " in body else f"{{ {body} }}"))


@pytest.mark.parametrize("name", BODIES)
def test_operator_computes_what_onnx_runtime_computes(name: str) -> None:
    model = parsed(BODIES[name])
    pixels = np.random.default_rng(1).normal(0, 2, (2, 3, 7, 9)).astype(np.float32)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": pixels})[0]
    found = TrainableGraph(model, model)(torch.from_numpy(pixels))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_every_operator_is_tested() -> None:
    used = {node.op_type for body in BODIES.values() for node in parsed(body).graph.node}
    assert used == set(OPERATORS)


def test_unknown_operator_is_named() -> None:
    model = parsed("y = Erf(x)")
    with pytest.raises(UsageError, match="does not know the operator Erf"):
        TrainableGraph(model, model)


def test_padding_that_torch_would_count_is_refused() -> None:
    model = parsed("y = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1]>(x)")
    with pytest.raises(UsageError, match="different pads"):
        TrainableGraph(model, model)(torch.zeros(1, 3, 7, 9))
