"""From the start of a process to the first label: `import edgewright`, load a bundle, label one picture.

    python -m edgewright.benchmarks.peers.cold_start BUNDLE [--json]

Each run is a process of its own. Time is what the process needs from its first line to the label, and, beside it, from
the outside with the interpreter's own start; memory is the process's peak resident set.
"""

from __future__ import annotations

import json as json_module
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer

from edgewright.benchmarks.device import device_facts
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, print_table

_CHILD = """
import time
start = time.perf_counter()
import json, resource, sys
import edgewright
classifier = edgewright.load(sys.argv[1], artefact=sys.argv[3])
prediction = classifier(sys.argv[2])
seconds = time.perf_counter() - start
heavy = [name for name in ("torch", "onnx", "openvino", "matplotlib") if name in sys.modules]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "label": prediction.label, "heavy": heavy}))
"""


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    runs: Annotated[int, typer.Option(min=1, help="Processes per artefact.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure the first label of every artefact for ONNX Runtime, the engine of the base install."""
    opened = open_bundle(bundle)
    picture = bundle / opened.manifest.golden[0].image
    names = [artefact.name for artefact in opened.manifest.artefacts if artefact.backend == "onnxruntime"]
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            start = perf_counter()
            done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
                [sys.executable, "-c", _CHILD, str(bundle), str(picture), name],
                capture_output=True,
                text=True,
                check=True,
            )
            samples[name].append({"process_seconds": perf_counter() - start} | json_module.loads(done.stdout))
    rows = [
        {
            "artefact": name,
            "seconds": median(sample["seconds"] for sample in found),
            "process_seconds": median(sample["process_seconds"] for sample in found),
            "peak_mb": max(sample["peak_mb"] for sample in found),
            "heavy_modules": found[0]["heavy"],
            "runs": runs,
        }
        for name, found in samples.items()
    ]
    if json:
        emit_json({"cpu": device_facts().cpu, "artefacts": rows})
    print_table(
        f"first label, {bundle}: median of {runs} processes, largest peak",
        ("artefact", "import to label s", "whole process s", "peak MB"),
        [
            (row["artefact"], f"{row['seconds']:.2f}", f"{row['process_seconds']:.2f}", f"{row['peak_mb']:.0f}")
            for row in rows
        ],
    )


if __name__ == "__main__":
    typer.run(main)
