"""A measurement such as a machine leaves, without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edgewright.benchmarks.document import BenchDocument
from edgewright.benchmarks.reports import STAGES, Interval, LatencyReport, SampleSet

ARTEFACTS = (
    ("model.fp32", "onnxruntime", "fp32", 0.912, 8.0),
    ("model.int8.ort-x86", "onnxruntime", "int8", 0.904, 4.0),
    ("openvino.fp32", "openvino", "fp32", 0.912, 6.0),
    ("openvino.int8", "openvino", "int8", 0.908, 2.5),
)
SHARES = dict(zip(STAGES, (0.25, 0.1, 0.01, 0.6, 0.01, 0.03), strict=True))

Measured = tuple[BenchDocument, dict[int, SampleSet]]
Measure = Callable[..., Measured]


@pytest.fixture(scope="session")
def measured() -> Measure:
    """`measured(names, threads=(1, 2), batches=(1, 8), findings=[…])`: a document and its raw samples; `names` replace
    the artefacts' own."""

    def make(
        names: Sequence[str] = (),
        *,
        threads: Sequence[int] = (1, 2),
        batches: Sequence[int] = (1, 8),
        findings: Sequence[str] | None = (),
        **changes: Any,
    ) -> Measured:
        rng = np.random.default_rng(0)
        reports, samples = [], {}
        kinds = [(name, *ARTEFACTS[index % len(ARTEFACTS)][1:]) for index, name in enumerate(names)] or ARTEFACTS
        for number, (name, backend, precision, top1, base) in enumerate(kinds):
            for count in threads:
                for batch in batches:
                    scale = base * (1 + 0.01 * number) * batch**0.9 / count**0.7
                    total = scale * rng.lognormal(0, 0.15, 700)
                    total[rng.integers(0, 700, 3)] *= 6
                    p50, p90, p95, p99 = np.percentile(total, (50, 90, 95, 99)).tolist()
                    samples[len(reports)] = SampleSet(total, {stage: total * share for stage, share in SHARES.items()})
                    reports.append(
                        LatencyReport(
                            artefact=name, backend=backend, device="cpu", provider="CPU", precision=precision,
                            scenario="closed-loop", threads=count, batch=batch, samples=700,
                            p50_ms=p50, p90_ms=p90, p95_ms=p95, p99_ms=p99,
                            intervals={"p50": Interval(0.98 * p50, 1.03 * p50)}, images_per_s=1e3 * batch / p50,
                            stages_ms={stage: p50 * share for stage, share in SHARES.items()}, size_bytes=9_100_000,
                            top1=top1, drop=100 * (0.912 - top1), recommended=name == "openvino.int8",
                            memory_peak_mb=120.5,
                        )
                    )  # fmt: skip
        usual: dict[str, Any] = {
            "bundle": "digits",
            "bundle_sha256": "ab" * 32,
            "created_at": "2025-01-01T00:00:00+00:00",
            "device": {
                "cpu": "a CPU",
                "cpu_features": ["avx2"],
                "cores": 2,
                "memory_gib": None,
                "versions": {"numpy": "2"},
            },
            "conditions": {"seconds": 12.3, "others_busy": 0.01, "governor": None, "frequency_mhz_max": 2900.0}
            | ({} if findings is None else {"findings": list(findings)}),
            "reports": tuple(reports),
        }
        return BenchDocument(**(usual | changes)), samples

    return make
