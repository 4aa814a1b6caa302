"""Closed loop: one picture after the other, each from its encoded bytes to its label, stages apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter, perf_counter_ns

import numpy as np
import numpy.typing as npt

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import BundleError
from edgewright.runtime.manifest import Artefact

__all__ = ["FEWEST_FOR_P99", "LatencyReport", "bench_closed_loop", "percentile_or_none"]

FEWEST_FOR_P99 = 662
"""Queries that MLPerf's early stopping needs before it believes a 99th percentile (confidence 0.99)."""

FEWEST_FOR_P90 = 64
"""The same for a 90th percentile."""

_BURST = 50
_WARM_UP = 10
STAGES = ("decode", "preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class LatencyReport:
    """One artefact, picture to label, batch 1.

    `p50_ms`, `p90_ms`, `p99_ms` and `images_per_s` are of the whole way; `stages_ms` holds the median of each stage,
    of which `inference` is the engine. A percentile is None where there are too few samples to believe it.
    """

    artefact: str
    backend: str
    precision: str
    scenario: str
    threads: int | None
    batch: int
    samples: int
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    images_per_s: float
    stages_ms: dict[str, float]
    size_bytes: int
    top1: float | None
    drop: float | None
    recommended: bool


def bench_closed_loop(
    bundle: Bundle, artefacts: Sequence[Artefact], *, threads: int | None, seconds: float
) -> list[LatencyReport]:
    """Measure `artefacts` on the bundle's golden pictures, in bursts that take turns.

    Each runs until it has enough samples for a 99th percentile and half a second, or until `seconds` are over. Every
    sample counts; nothing is clipped.

    Raises:
        BundleError: the bundle has no pictures.
    """
    pictures = [bundle.read(vector.image) for vector in bundle.manifest.golden]
    if not pictures:
        raise BundleError(f"'{bundle.path}' has no golden pictures to measure with. Export it again with --golden 6.")
    classifiers = {artefact.name: Classifier(bundle, artefact, threads=threads) for artefact in artefacts}
    totals: dict[str, list[float]] = {name: [] for name in classifiers}
    stages: dict[str, list[tuple[float, ...]]] = {name: [] for name in classifiers}
    spent = dict.fromkeys(classifiers, 0.0)
    try:
        unfinished = list(classifiers)
        while unfinished:
            for name in list(unfinished):
                spent[name] += _burst(classifiers[name], pictures, totals[name], stages[name])
                if spent[name] >= seconds or (len(totals[name]) >= FEWEST_FOR_P99 and spent[name] >= 0.5):
                    unfinished.remove(name)
    finally:
        for classifier in classifiers.values():
            classifier.close()
    by_name = {artefact.name: artefact for artefact in artefacts}
    return [
        _report(by_name[name], totals[name], np.asarray(stages[name]), threads, bundle.manifest.recommended)
        for name in classifiers
    ]


def _burst(
    classifier: Classifier, pictures: Sequence[bytes], totals: list[float], stages: list[tuple[float, ...]]
) -> float:
    """One burst; returns its seconds. Calls at its start, while the engine before still spins down, are not counted."""
    source = cycle(pictures)
    for _ in range(_WARM_UP):
        classifier(next(source))
    begun = perf_counter()
    for _ in range(_BURST):
        picture = next(source)
        start = perf_counter_ns()
        timings = classifier(picture).timings
        totals.append((perf_counter_ns() - start) / 1e6)
        stages.append((timings.decode_ms, timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms))
    return perf_counter() - begun


def percentile_or_none(samples: npt.NDArray[np.float64], percent: int, least: int) -> float | None:
    """The percentile (nearest rank, so always a value that was measured), or None below `least` samples."""
    if len(samples) < least:
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf"))


def _report(
    artefact: Artefact,
    totals: Sequence[float],
    stages: npt.NDArray[np.float64],
    threads: int | None,
    recommended: str,
) -> LatencyReport:
    samples = np.asarray(totals)
    medians: Mapping[str, float] = dict(zip(STAGES, np.median(stages, axis=0).tolist(), strict=True))
    return LatencyReport(
        artefact=artefact.name,
        backend=artefact.backend,
        precision=artefact.precision,
        scenario="closed-loop",
        threads=threads,
        batch=1,
        samples=len(samples),
        p50_ms=float(np.median(samples)),
        p90_ms=percentile_or_none(samples, 90, FEWEST_FOR_P90),
        p99_ms=percentile_or_none(samples, 99, FEWEST_FOR_P99),
        images_per_s=1e3 * len(samples) / float(samples.sum()),
        stages_ms=dict(medians),
        size_bytes=artefact.size_bytes,
        top1=artefact.top1,
        drop=artefact.drop,
        recommended=artefact.name == recommended,
    )
