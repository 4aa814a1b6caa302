"""A small real network for digits, quantized in the ways that our profiles quantize."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch.nn import functional

from edgewright.export.onnx_graph import to_onnx
from edgewright.export.quiet import quiet_loggers
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data import read_data

SIZE = 16

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


class Gated(nn.Module):
    """Everything that quantizers stumble over: a depthwise layer, a gate, a residual sum, hard-swish, two kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.squeeze = nn.Conv2d(12, 12, 1)
        self.mix = nn.Conv2d(12, 12, 1)
        self.last = nn.Conv2d(12, 24, 3)
        self.head = nn.Linear(24, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).contiguous().float() * (1 / 64) - 2.0
        images = functional.hardswish(self.stem(images))
        branch = functional.relu(self.depthwise(images))
        branch = branch * functional.hardsigmoid(self.squeeze(branch.mean((2, 3), keepdim=True)))
        images = functional.max_pool2d(images + self.mix(branch), 2)
        logits: torch.Tensor = self.head(functional.relu6(self.last(images)).mean((2, 3)))
        return logits


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.batches: Iterator[npt.NDArray[np.uint8]] = iter([pixels])

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"pixels": batch}


OPTIONS: dict[str, dict[str, Any]] = {
    "x86": {"activation_type": QuantType.QUInt8, "reduce_range": True},
    "arm": {"activation_type": QuantType.QInt8},
    "trt": {
        "activation_type": QuantType.QInt8,
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
        },
    },
}

Quantize = Callable[..., onnx.ModelProto]
Execute = Callable[[onnx.ModelProto, npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def digits() -> dict[str, Split]:
    data, spec = read_data("digits", seed=0), Preprocess(resize=SIZE, crop=SIZE)
    return {
        split: (
            np.stack([preprocess(sample.source, spec) for sample in samples]),
            np.array([sample.label for sample in samples]),
        )
        for split, samples in data.splits.items()
    }


@pytest.fixture(scope="session")
def float_model(digits: dict[str, Split]) -> onnx.ModelProto:
    """Trained for a few seconds, to about 95 %."""
    torch.manual_seed(0)
    network, (pixels, labels) = Gated(), digits["train"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(8):
        for part in np.array_split(rng.permutation(len(pixels)), len(pixels) // 64):
            loss = functional.cross_entropy(network(torch.from_numpy(pixels[part])), torch.from_numpy(labels[part]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return to_onnx(network.eval(), SIZE)


@pytest.fixture(scope="session")
def quantize(
    float_model: onnx.ModelProto, digits: dict[str, Split], tmp_path_factory: pytest.TempPathFactory
) -> Quantize:
    """`quantize("x86")`: by ONNX Runtime, the preface in float as in our exports."""
    folder = tmp_path_factory.mktemp("quantized")

    def make(
        profile: str,
        *,
        per_channel: bool = True,
        pixels: npt.NDArray[np.uint8] | None = None,
        model: onnx.ModelProto = float_model,
    ) -> onnx.ModelProto:
        calibration = digits["train"][0][:200] if pixels is None else pixels
        names = [node.name for node in model.graph.node]
        kinds = [node.op_type for node in model.graph.node]
        path = folder / "int8.onnx"
        with quiet_loggers(""), contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                copy.deepcopy(model),
                str(path),
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=names[: kinds.index("Conv")],
                **OPTIONS[profile],
            )
        return onnx.load(path)

    return make


@pytest.fixture(scope="session")
def execute() -> Execute:
    """Logits by ONNX Runtime, computed as the file says: on CPUs without VNNI its int8 kernels saturate, unless weights
    have a reduced range, and these tests are about the file."""

    def run(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options)
        return np.asarray(session.run(None, {"pixels": pixels})[0], dtype=np.float32)

    return run


def with_ranges_times(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """A quantized model whose activations have scales that are wrong by `factor`, and biases to match."""
    changed = copy.deepcopy(model)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}

    def multiply(name: str, by: float) -> None:
        array = numpy_helper.to_array(tensors[name])
        product = np.round(array * by) if array.dtype == np.int32 else array * by
        tensors[name].CopyFrom(numpy_helper.from_array(product.astype(array.dtype), name))

    for scale in {node.input[1] for node in changed.graph.node if node.op_type == "QuantizeLinear"}:
        if "weight" not in scale:
            multiply(scale, factor)
    for node in changed.graph.node:
        codes = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is not None and codes.data_type == onnx.TensorProto.INT32:
            multiply(node.input[0], 1 / factor)
            multiply(node.input[1], factor)
    return changed
