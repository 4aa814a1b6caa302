"""What a measurement says: the frozen types that the harness fills, and that tables, reports and comparisons read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["STAGES", "Interval", "LatencyReport", "LayerTime", "SampleSet", "Scenario"]

Scenario = Literal[
    "closed-loop", "open-loop", "mlperf-single-stream", "mlperf-multi-stream", "mlperf-offline", "mlperf-server"
]

STAGES = ("decode", "preprocess", "copy_in", "inference", "copy_out", "postprocess")
"""From a picture's bytes to its label, in their order. `copy_in` and `copy_out` are what moves tensors to the engine and
back; an engine that reads them where they are takes next to nothing for it."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true figure lies, with 95 % confidence, should the machine stay as it was."""

    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class LatencyReport:
    """One way to run the model (artefact, backend, threads, batch), measured in one scenario.

    Attributes:
        artefact: Its name in the bundle.
        backend: The engine.
        device: What the engine says that it ran on.
        provider: The engine's part that has it, as it says.
        precision: Of the file.
        scenario: See :data:`Scenario`.
        threads: Of one inference, as the engine says; None where that means nothing.
        batch: Pictures in one inference.
        samples: Requests measured; none is left out.
        p50_ms: The median time of a request. In a closed loop and an open one from encoded bytes to labels (all pictures of
            the batch); in MLPerf's scenarios from the prepared tensor to the logits.
        p90_ms: None, as every other percentile, where there are too few samples to believe it.
        p95_ms: The same.
        p99_ms: The same.
        intervals: For "p50", "p90", "p95", "p99", those that there are.
        images_per_s: Pictures answered in a second, one request after the other; in an open loop as many as arrived.
        stages_ms: The median of each of :data:`STAGES`, for one request. Empty in MLPerf's scenarios.
        size_bytes: The artefact's files.
        top1: Accuracy as the bundle has it, 0 to 1.
        drop: Points of accuracy lost against the trained model.
        recommended: Whether the bundle recommends this artefact.
        memory_peak_mb: Largest resident memory of a process of its own that loads the artefact and labels pictures.
        joules_per_image: None where the machine does not tell.
        details: What only this scenario has: "offered_per_s", "compliant" (1.0 or 0.0), …
    """

    artefact: str
    backend: str
    device: str
    provider: str
    precision: str
    scenario: Scenario
    threads: int | None
    batch: int
    samples: int
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    intervals: dict[str, Interval]
    images_per_s: float
    stages_ms: dict[str, float]
    size_bytes: int
    top1: float | None
    drop: float | None
    recommended: bool
    memory_peak_mb: float | None = None
    joules_per_image: float | None = None
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerTime:
    """One layer as the engine executed it: `ms` for one inference, `share` of all layers' time (0 to 1)."""

    layer: str
    kind: str
    precision: str
    ms: float
    share: float


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Every request of one row, in the order in which they came; none is left out.

    Attributes:
        total_ms: Time of each request.
        stages_ms: The same for each stage, as long as `total_ms`.
    """

    total_ms: npt.NDArray[np.float64]
    stages_ms: dict[str, npt.NDArray[np.float64]]
