"""Ranges to start from: those that fit stay, those that do not are replaced."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgewright.export.qat.fitting import fit_ranges
from edgewright.export.qat.graph import TrainableGraph

from .conftest import Execute, Quantize, Split, with_ranges_times


def scales(graph: TrainableGraph) -> list[float]:
    return [value.item() for value in graph.log_scales]


def test_ranges_that_fit_stay(float_model: onnx.ModelProto, quantize: Quantize, digits: dict[str, Split]) -> None:
    graph = TrainableGraph(float_model, quantize("x86"))
    before = scales(graph)
    changed = fit_ranges(graph, float_model, digits["train"][0][:64])
    assert changed <= len(before) // 4
    assert sum(old != new for old, new in zip(before, scales(graph), strict=True)) == changed


@pytest.mark.parametrize("profile", ["x86", "arm", "trt"])
@pytest.mark.parametrize("factor", [0.2, 40.0])
def test_ranges_that_are_far_off_are_set_anew(
    profile: str,
    factor: float,
    float_model: onnx.ModelProto,
    quantize: Quantize,
    execute: Execute,
    digits: dict[str, Split],
) -> None:
    good, (pixels, labels) = quantize(profile), digits["val"]
    bad = with_ranges_times(good, factor)
    graph = TrainableGraph(float_model, bad)
    changed = fit_ranges(graph, float_model, digits["train"][0][:64])
    assert changed >= 0.9 * len(graph.activations)
    scores = [(execute(model, pixels).argmax(1) == labels).mean() for model in (good, bad, graph.to_onnx())]
    assert scores[1] < scores[0] - 0.1
    assert scores[2] > scores[0] - 0.04


def test_zero_points_follow_and_symmetric_ones_stay_zero(
    float_model: onnx.ModelProto, quantize: Quantize, digits: dict[str, Split]
) -> None:
    for profile in ("x86", "trt"):
        graph = TrainableGraph(float_model, quantize(profile, pixels=np.zeros((8, 16, 16, 3), np.uint8)))
        before = [activation.zero_point for activation in graph.activations]
        assert fit_ranges(graph, float_model, digits["train"][0][:64]) > 0
        after = [activation.zero_point for activation in graph.activations]
        assert (after == before) == (profile == "trt")
