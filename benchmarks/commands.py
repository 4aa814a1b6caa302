"""`edgewright bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table, warn

if TYPE_CHECKING:
    from edgewright.benchmarks.closed_loop import LatencyReport
    from edgewright.benchmarks.device import DeviceFacts

__all__ = ["bench_command", "bench_document", "print_bench"]


def bench_document(device: DeviceFacts, reports: Sequence[LatencyReport]) -> dict[str, Any]:
    """The `--json` document of bench."""
    return {"device": asdict(device), "reports": [asdict(report) for report in reports]}


def print_bench(title: str, device: DeviceFacts, reports: Sequence[LatencyReport]) -> None:
    """The table a person sees."""

    def ms(value: float | None) -> str | None:
        return None if value is None else f"{value:.2f}"

    print_table(
        title,
        (
            "artefact",
            "top-1",
            "drop",
            "size MB",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "img/s",
            "decode",
            "prepare",
            "engine",
            "post",
            "",
        ),
        [
            (
                report.artefact,
                None if report.top1 is None else f"{report.top1:.4f}",
                None if report.drop is None else f"{report.drop:+.2f}",
                f"{report.size_bytes / 1e6:.2f}",
                ms(report.p50_ms),
                ms(report.p90_ms),
                ms(report.p99_ms),
                f"{report.images_per_s:.0f}",
                *(ms(report.stages_ms[stage]) for stage in ("decode", "preprocess", "inference", "postprocess")),
                "recommended" if report.recommended else "",
            )
            for report in reports
        ],
    )
    features = f" ({', '.join(device.cpu_features)})" if device.cpu_features else ""
    notice(f"picture to label, batch 1, on {device.cpu}{features}, {device.cores} cores")
    if device.load_average is not None and device.load_average > 0.5 * device.cores:
        warn(
            f"the machine was busy before (load {device.load_average:.1f} on {device.cores} cores): figures may be too high"
        )


def bench_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    artefact: Annotated[Optional[str], typer.Option(help="Only this artefact.")] = None,
    threads: Annotated[
        Optional[int], typer.Option(min=1, max=1024, help="Threads for one inference. (default: all cores)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="At most so long for each artefact.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure latency on this machine: picture to label, stages apart, artefacts taking turns."""
    from edgewright.benchmarks.closed_loop import bench_closed_loop
    from edgewright.benchmarks.device import device_facts
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.commands import runnable_artefacts

    # Read before measuring: the measurement itself loads the machine.
    device = device_facts()
    opened = open_bundle(bundle)
    reports = bench_closed_loop(opened, runnable_artefacts(opened, artefact), threads=threads, seconds=seconds)
    if json:
        emit_json(bench_document(device, reports))
    print_bench(str(bundle), device, reports)
    fastest = min(reports, key=lambda report: report.p50_ms)
    notice(f"fastest here: {fastest.artefact}")
    notice(f"next: edgewright predict {bundle} PICTURE --artefact {fastest.artefact}")
