"""What INT8 gains and costs: networks fine-tuned on the same pictures, every artefact measured in turn.

    python -m edgewright.benchmarks.peers.int8_gain RUN... [--json]

Each run is exported with every artefact a CPU can run, through all gates; then all artefacts of its bundle take turns on the same
picture, engine alone, with fixed threads. "float" is true FP32: executed as such, asked back from the engine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.peers.sides import machine
from edgewright.export.config import ExportConfig
from edgewright.export.exporter import export
from edgewright.export.proof import measure_latency
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import preprocess

__all__ = ["measure_int8_gain"]


def measure_int8_gain(run: Path, *, threads: int, seconds: float, max_drop: float = 1.0) -> dict[str, Any]:
    """Export a run and compare its artefacts.

    Returns:
        `export_seconds`; a row for each artefact with its test `top1`, `drop` (points lost on test against the trained
        model) and `p50_ms`; and how many times as fast the best INT8 artefact is as the best FP32 and bf16 ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        result = export(ExportConfig(run=str(run), out=Path(folder) / "bundle", max_drop=max_drop))
        export_seconds = perf_counter() - started
        bundle = result.bundle
        pixels = preprocess(bundle.read(bundle.manifest.golden[0].image), bundle.manifest.preprocess)[None]
    passed = [finding.candidate for finding in result.findings.artefacts if finding.proof.passed]
    latency = measure_latency(passed, pixels, seconds, threads)
    trained = bundle.manifest.metrics["test_top1"]
    rows: list[dict[str, Any]] = [
        {
            "name": finding.candidate.name,
            "executed": finding.candidate.executed,
            "passed": finding.proof.passed,
            "top1": finding.proof.test_top1,
            "drop": None
            if trained is None or finding.proof.test_top1 is None
            else 100 * (trained - finding.proof.test_top1),
            "quantization": finding.candidate.quantization,
            "size_bytes": finding.candidate.size_bytes,
            "p50_ms": latency.get(finding.candidate.name),
        }
        for finding in result.findings.artefacts
    ]
    best: dict[str, float | None] = {
        precision: min(
            (row["p50_ms"] for row in rows if row["executed"] == precision and row["p50_ms"] is not None), default=None
        )
        for precision in ("fp32", "bf16", "int8")
    }
    return {
        "run": run.name,
        "backbone": bundle.manifest.provenance.backbone,
        "trained_test_top1": trained,
        "export_seconds": export_seconds,
        "artefacts": rows,
        "int8_over_fp32": _times(best["fp32"], best["int8"]),
        "int8_over_bf16": _times(best["bf16"], best["int8"]),
    }


def _times(slow: float | None, fast: float | None) -> float | None:
    return None if slow is None or fast is None else slow / fast


def main(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs of `edgewright train`.")],
    threads: Annotated[
        Optional[int], typer.Option(min=1, help="Threads for one inference. (default: all cores)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each artefact is measured.")] = 5.0,
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="As of `edgewright export`.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure them all."""
    used = threads or available_cores()
    facts = machine()
    found = [measure_int8_gain(run, threads=used, seconds=seconds, max_drop=max_drop) for run in runs]
    if json:
        emit_json({"runs": found, "threads": used, "device": facts})
    for document in found:
        gains = ", ".join(
            f"{document[key]:.2f} times as fast as {name}"
            for key, name in (("int8_over_fp32", "FP32"), ("int8_over_bf16", "bf16"))
            if document[key] is not None
        )
        print_table(
            f"{document['backbone']}: export {document['export_seconds']:.0f} s; best INT8 {gains}",
            ("artefact", "executed", "test top-1", "drop", "p50", "size", "quantized by", ""),
            [
                (
                    row["name"],
                    row["executed"],
                    None if row["top1"] is None else f"{row['top1']:.4f}",
                    None if row["drop"] is None else f"{row['drop']:+.2f}",
                    None if row["p50_ms"] is None else f"{row['p50_ms']:.2f} ms",
                    f"{row['size_bytes'] / 1e6:.2f} MB",
                    row["quantization"],
                    "" if row["passed"] else "refused",
                )
                for row in document["artefacts"]
            ],
        )


if __name__ == "__main__":
    typer.run(main)
