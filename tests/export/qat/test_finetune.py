"""Quantization-aware training on real digits: it repairs what was broken, and says so truthfully."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgewright.export.qat import finetune
from edgewright.export.qat.agreement import check_agreement
from edgewright.export.qat.fitting import fit_ranges
from edgewright.export.qat.graph import TrainableGraph
from edgewright.runtime.errors import DataError, GateError, UsageError

from .conftest import Execute, Quantize, Split, with_ranges_times

BATCH = 32

Batch = npt.NDArray[np.uint8]
Source = Callable[[int], Generator[Batch, None, None]]
Score = Callable[[onnx.ModelProto], float]


@pytest.fixture
def batches(digits: dict[str, Split]) -> Source:
    pixels, _ = digits["train"]

    def source(epoch: int) -> Generator[Batch, None, None]:
        order = np.random.default_rng((0, epoch)).permutation(len(pixels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield pixels[order[start : start + BATCH]]

    return source


@pytest.fixture
def likeness(
    digits: dict[str, Split], float_model: onnx.ModelProto, execute: Execute
) -> Callable[[onnx.ModelProto], float]:
    """How close logits come to the float graph's: less the mean difference, as a share of their spread."""
    pixels = digits["val"][0]
    wanted = execute(float_model, pixels)
    return lambda model: -float(np.abs(execute(model, pixels) - wanted).mean() / wanted.std())


def with_uneven_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function of pixels, with a few channels of the depthwise layer 30 times the others, as in real MobileNets:
    what is behind its ReLU is divided by as much."""
    changed = copy.deepcopy(model)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    factors = np.ones(12, np.float32)
    factors[::4] = 30
    for name, shape in (
        ("depthwise.weight", (-1, 1, 1, 1)),
        ("depthwise.bias", (-1,)),
        ("squeeze.weight", (1, -1, 1, 1)),
        ("mix.weight", (1, -1, 1, 1)),
    ):
        by = factors.reshape(shape) if name.startswith("depthwise") else 1 / factors.reshape(shape)
        array = numpy_helper.to_array(tensors[name]) * by
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    return changed


@pytest.mark.parametrize("broken", ["ranges x 0.3", "ranges x 8", "one scale for uneven channels", "black calibration"])
def test_broken_quantization_is_repaired(
    broken: str, float_model: onnx.ModelProto, quantize: Quantize, batches: Source, likeness: Score
) -> None:
    uneven = with_uneven_channels(float_model)
    model, quantized = {
        "ranges x 0.3": lambda: (float_model, with_ranges_times(quantize("x86"), 0.3)),
        "ranges x 8": lambda: (float_model, with_ranges_times(quantize("x86"), 8.0)),
        "one scale for uneven channels": lambda: (uneven, quantize("x86", per_channel=False, model=uneven)),
        "black calibration": lambda: (float_model, quantize("x86", pixels=np.zeros((8, 16, 16, 3), np.uint8))),
    }[broken]()
    before = likeness(quantized)
    result = finetune(model, quantized, batches, epochs=2, steps=39, evaluate=likeness, lr=3e-4)
    if "uneven" not in broken:
        assert result.score > 0.1 * before
        # Trained, it is better than a quantization that nobody has broken.
        assert result.score > likeness(quantize("x86"))
    assert result.records[0].score == before
    assert result.score == likeness(result.model) == max(record.score for record in result.records)
    assert result.score > 0.7 * before
    assert result.agreement is not None
    assert result.agreement.mean_diff < 0.005
    assert result.model.graph.node == quantized.graph.node


def test_training_itself_repairs_what_ranges_cannot(
    float_model: onnx.ModelProto, quantize: Quantize, batches: Source, digits: dict[str, Split], likeness: Score
) -> None:
    uneven = with_uneven_channels(float_model)
    quantized = quantize("x86", per_channel=False, model=uneven)
    graph = TrainableGraph(uneven, quantized)
    fit_ranges(graph, uneven, digits["train"][0][:128])
    fitted = likeness(graph.to_onnx())
    result = finetune(uneven, quantized, batches, epochs=4, steps=39, evaluate=likeness, lr=3e-4)
    assert result.score > 0.6 * fitted


def test_same_arguments_give_the_same_graph(
    float_model: onnx.ModelProto, quantize: Quantize, batches: Source, likeness: Score
) -> None:
    quantized = with_ranges_times(quantize("x86"), 0.3)
    results = [finetune(float_model, quantized, batches, epochs=1, steps=6, evaluate=likeness) for _ in range(2)]
    assert results[0].model.SerializeToString() == results[1].model.SerializeToString()
    assert results[0].score > likeness(quantized)


def test_stops_when_it_is_good_enough(
    float_model: onnx.ModelProto, quantize: Quantize, batches: Source, likeness: Score
) -> None:
    quantized = with_ranges_times(quantize("x86"), 0.3)
    result = finetune(float_model, quantized, batches, epochs=5, steps=4, evaluate=likeness, target=-0.2)
    assert [record.epoch for record in result.records] == [0, 1]
    good = finetune(float_model, quantize("x86"), batches, epochs=5, steps=4, evaluate=likeness, target=-0.2)
    assert [record.epoch for record in good.records] == [0]
    assert good.agreement is None


def test_graph_that_training_would_spoil_is_given_back(
    float_model: onnx.ModelProto, quantize: Quantize, batches: Source, likeness: Score
) -> None:
    quantized = quantize("x86")
    result = finetune(float_model, quantized, batches, epochs=1, steps=10, evaluate=likeness, lr=0.3)
    assert result.model is quantized
    assert result.score == likeness(quantized)


def test_interrupt_ends_it_and_closes_the_batches(
    float_model: onnx.ModelProto, quantize: Quantize, batches: Source, likeness: Score
) -> None:
    closed = []

    def interrupted(epoch: int) -> Generator[Batch, None, None]:
        try:
            for number, batch in enumerate(batches(epoch)):
                if number == 5:
                    raise KeyboardInterrupt
                yield batch
        finally:
            closed.append(epoch)

    quantized = quantize("x86")
    before = quantized.SerializeToString()
    with pytest.raises(KeyboardInterrupt):
        finetune(float_model, quantized, interrupted, epochs=1, steps=10, evaluate=likeness)
    assert closed == [1, 1]  # once for the ranges
    assert quantized.SerializeToString() == before


def test_nothing_to_train_on_is_said(float_model: onnx.ModelProto, quantize: Quantize, likeness: Score) -> None:
    def none(epoch: int) -> Generator[Batch, None, None]:
        yield from ()

    with pytest.raises(DataError, match="needs the training split"):
        finetune(float_model, quantize("x86"), none, epochs=1, steps=10, evaluate=likeness)
    with pytest.raises(UsageError, match="at least 1"):
        finetune(float_model, quantize("x86"), none, epochs=0, steps=10, evaluate=likeness)


def test_file_that_is_not_what_was_trained_is_noticed(
    float_model: onnx.ModelProto, quantize: Quantize, digits: dict[str, Split]
) -> None:
    quantized, pixels = quantize("x86"), digits["val"][0][:32]
    graph = TrainableGraph(float_model, quantized)
    assert check_agreement(graph, graph.to_onnx(), pixels).top1 == 1.0
    with torch.no_grad():
        for value in graph.log_scales:
            value -= 0.9  # learned, and not written
    with pytest.raises(GateError, match="not what was trained"):
        check_agreement(graph, quantized, pixels)
