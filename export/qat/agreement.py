"""Whether the written graph says what was trained. How faithfully an engine executes it is for the score to tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgewright.export.qat.graph import TrainableGraph
from edgewright.export.simulate import simulate
from edgewright.runtime.errors import GateError

__all__ = ["Agreement", "check_agreement"]

_MOST = 0.2
"""Mean difference of logits, as a share of their spread, that rounding can explain. Where a value lies between two codes,
the order of a sum decides which one it takes; in the first layers of a MobileNetV2 two codes in a million differ, in the
last every second one, and logits by 0.04, which is just as much as ONNX Runtime with optimizations differs from itself
without them. A scale that is not written makes far more."""


@dataclass(frozen=True)
class Agreement:
    """ONNX Runtime against the graph in training, on the same pictures.

    Attributes:
        images: How many.
        top1: Share of them with the same first class.
        mean_diff: Mean absolute difference of logits, as a share of their standard deviation.
        max_diff: The largest one, likewise.
    """

    images: int
    top1: float
    mean_diff: float
    max_diff: float


def check_agreement(graph: TrainableGraph, model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> Agreement:
    """Compare `graph` with the `model` that it has written.

    Raises:
        GateError: they are not the same, so that the training's result is worth nothing.
    """
    with torch.inference_mode():
        trained = graph(torch.from_numpy(pixels)).numpy()
    executed = simulate(model, pixels)
    spread = max(float(trained.std()), 1e-12)
    difference = np.abs(executed - trained) / spread
    found = Agreement(
        len(pixels),
        float((executed.argmax(1) == trained.argmax(1)).mean()),
        float(difference.mean()),
        float(difference.max()),
    )
    if not found.mean_diff <= _MOST:
        raise GateError(
            f"The written graph is not what was trained: ONNX Runtime's logits differ by {found.mean_diff:.3f} of their "
            f"spread, expected at most {_MOST}. The result of quantization-aware training is not used; please report this."
        )
    return found
