"""Our engine's figure against those of the engines' own tools, for the same file, threads and batch.

    python -m edgewright.benchmarks.peers.latency_agreement BUNDLE [--json]

OpenVINO's artefacts against its `benchmark_app` with the latency hint, one request at a time and the precision that is
declared; ONNX Runtime's, whose Python package has no such tool, against a bare session. All are processes of their own that
take turns; inputs are prepared tensors, one inference follows the other.
"""

from __future__ import annotations

import json as json_module
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgewright.benchmarks.peers.sides import Side, machine, run_script
from edgewright.runtime.bundle import Bundle, open_bundle
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import EdgewrightError, UsageError
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.openvino_cache import PRECISION_HINTS

__all__ = ["compare_engines"]


def _ours(bundle: Bundle, artefact: Artefact, seconds: float, do: str) -> float:
    """Median milliseconds of an inference in a fresh process; `do` "ours" or "onnxruntime"."""
    command = [sys.executable, "-W", "ignore", "-m", "edgewright.benchmarks.peers.engine_sides"]
    request = {"do": do, "bundle": str(bundle.path), "artefact": artefact.name, "seconds": seconds}
    return float(np.median(Side(do, command, request).run()["ms"]))


def _benchmark_app(bundle: Bundle, artefact: Artefact, seconds: float) -> float:
    """The median that `benchmark_app` reports."""
    # Beside the interpreter that runs us: the one of the OpenVINO that we use.
    tool = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if tool is None:
        raise UsageError("There is no benchmark_app beside this Python. It comes with the package openvino.")
    shape = list(bundle.manifest.input.in_layout(artefact.layout).shape)
    with tempfile.TemporaryDirectory() as folder:
        command = [tool, "-m", str(bundle.path / artefact.file), "-d", "CPU", "-hint", "latency", "-api", "sync"]
        command += ["-t", str(max(1, round(seconds))), "-infer_precision", PRECISION_HINTS[artefact.executed]]
        command += ["-shape", str([1, *shape[1:]]).replace(" ", ""), "-json_stats", "-report_folder", folder]
        command += ["-report_type", "no_counters"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - OpenVINO's tool
        report = Path(folder) / "benchmark_report.json"
        if done.returncode != 0 or not report.is_file():
            raise EdgewrightError(f"benchmark_app ended with status {done.returncode}: {done.stdout.strip()[-500:]}")
        return float(json_module.loads(report.read_text())["execution_results"]["latency (ms)"])


def compare_engines(bundle: Bundle, artefacts: list[Artefact], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """For each artefact the medians over rounds of ours and of its engine's tool, and the median of the rounds' ratios."""
    rows = []
    for artefact in artefacts:
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(rounds):
            # Who comes first alternates: a machine that slows down in the first seconds must not always hit the same one.
            for side in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
                if side == "ours":
                    ours.append(_ours(bundle, artefact, seconds, "ours"))
                elif artefact.backend == "openvino":
                    theirs.append(_benchmark_app(bundle, artefact, seconds))
                else:
                    theirs.append(_ours(bundle, artefact, seconds, "onnxruntime"))
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "artefact": artefact.name,
                "tool": "benchmark_app" if artefact.backend == "openvino" else "bare session",
                "ours_ms": float(np.median(ours)),
                "theirs_ms": float(np.median(theirs)),
                "ratio": float(np.median(ratios)),
                "ratios": ratios,
            }
        )
        notice(f"  {artefact.name}: {rows[-1]['ratio']:.3f}")
    return rows


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a turn.")] = 3.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure each artefact that runs here with our classifier's engine and with the engine's own tool."""
    facts = machine()
    opened = open_bundle(bundle)
    artefacts = [each for each in runnable_artefacts(opened, None) if each.backend in ("openvino", "onnxruntime")]
    rows = compare_engines(opened, artefacts, rounds=rounds, seconds=seconds)
    if json:
        emit_json({"artefacts": rows, "device": facts})
    print_table(
        f"one inference, p50, {bundle}",
        ("artefact", "ours ms", "the engine's tool", "ms", "ours takes"),
        [
            (
                row["artefact"],
                f"{row['ours_ms']:.3f}",
                row["tool"],
                f"{row['theirs_ms']:.3f}",
                f"{row['ratio']:.3f} of it",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    run_script(main)
