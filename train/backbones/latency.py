"""Latency of backbones on this machine, measured in turn."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgewright.runtime.console import track
from edgewright.runtime.extras import require
from edgewright.runtime.preprocess import Preprocess
from edgewright.runtime.timing import interleaved_latencies_ms
from edgewright.train.backbones.catalogue import build_backbone, drop_auxiliary
from edgewright.train.backbones.network import Network

__all__ = ["measure_latencies"]

_SECONDS = 1.5
_ROUNDS = 5
_GROUP_PARAMETERS = 200_000_000
"""Networks are compared in groups whose weights fit into the memory together."""


def measure_latencies(backbones: Sequence[tuple[str, int, int]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Median latency of a whole network, uint8 pixels to logits, one image at a time.

    OpenVINO in true FP32, with as many threads as it takes for latency. The weights are random: they do not change
    what is computed. Networks in one group take turns, so that a drift of the machine hits all of them alike.

    Args:
        backbones: (name, input size in px, parameters) of each.

    Returns:
        Milliseconds by name, and how they were measured.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    require("train", "openvino")
    from edgewright.runtime.silent_openvino import ov

    medians: dict[str, float] = {}
    threads = 0
    for group in _groups(backbones):
        calls: dict[str, Callable[[], object]] = {}
        for name, size, _ in track(group, "compiling", len(group)):
            compiled = _compile(ov, name, size)
            threads = compiled.get_property("INFERENCE_NUM_THREADS")
            pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
            calls[name] = _call(compiled.create_infer_request(), pixels)
        samples = interleaved_latencies_ms(calls, seconds=_SECONDS, rounds=_ROUNDS)
        medians |= {name: float(np.median(values)) for name, values in samples.items()}
    how = {"engine": f"OpenVINO {ov.__version__}", "precision": "fp32", "batch": 1, "threads": threads}
    return medians, how


def _groups(backbones: Sequence[tuple[str, int, int]]) -> list[list[tuple[str, int, int]]]:
    groups: list[list[tuple[str, int, int]]] = [[]]
    for one in backbones:
        if groups[-1] and sum(other[2] for other in groups[-1]) + one[2] > _GROUP_PARAMETERS:
            groups.append([])
        groups[-1].append(one)
    return groups


def _compile(ov: Any, name: str, size: int) -> Any:
    model = build_backbone(name)
    drop_auxiliary(model)
    network = Network(model, Preprocess(resize=size, crop=size)).eval()
    with warnings.catch_warnings():
        # OpenVINO's converter traces; torch warns that tracing will go, which is not for our users to mend.
        warnings.simplefilter("ignore")
        graph = ov.convert_model(network, example_input=torch.zeros(1, size, size, 3, dtype=torch.uint8))
    graph.reshape([1, size, size, 3])
    # f32 by name: the default would be bf16 on some CPUs.
    compiled = ov.compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    del graph, network, model
    gc.collect()
    return compiled


def _call(request: Any, pixels: Any) -> Callable[[], object]:
    return lambda: request.infer({0: pixels})
