"""From the start of a process to the first label: `import edgewright`, load a bundle, label one picture.

    python -m edgewright.benchmarks.peers.cold_start BUNDLE [--json]

Ultralytics with OpenVINO is measured beside it if --ultralytics-python names an interpreter that has it, see `image_to_label`.

Each run is a process of its own, and they take turns. Time is what the process needs from its first line to the label, and, beside it, from
the outside with the interpreter's own start; memory is the process's peak resident set.
"""

from __future__ import annotations

import json as json_module
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.device import device_facts
from edgewright.benchmarks.peers.sides import ULTRALYTICS, run_script, ultralytics
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.console import emit_json, print_table

_PEER = "Ultralytics"

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
    ultralytics_python: Annotated[
        Optional[Path], typer.Option(help="Also Ultralytics, with this interpreter of an environment that has it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure the first label of every artefact for ONNX Runtime, the engine of the base install."""
    opened = open_bundle(bundle)
    picture = bundle / opened.manifest.golden[0].image
    names = [artefact.name for artefact in runnable_artefacts(opened, None) if artefact.backend == "onnxruntime"]
    children: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(_first_label, bundle, picture, name) for name in names
    }
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        if ultralytics_python is not None:
            crop, classes = opened.manifest.preprocess.crop, len(opened.manifest.labels)
            request = {"do": "export", "folder": folder, "model": ULTRALYTICS, "classes": classes, "imgsz": crop}
            exported = ultralytics(ultralytics_python, request).run()["path"]
            asked = {"do": "first", "path": exported, "picture": str(picture), "imgsz": crop}
            children[_PEER] = lambda: ultralytics(ultralytics_python, asked).run()
            samples[_PEER] = []
        for _ in range(runs):
            for name, child in children.items():
                start = perf_counter()
                found = child()
                samples[name].append({"process_seconds": perf_counter() - start, **found})
    rows = {
        name: {
            "seconds": median(sample["seconds"] for sample in found),
            "process_seconds": median(sample["process_seconds"] for sample in found),
            "peak_mb": max(sample["peak_mb"] for sample in found),
            "heavy_modules": found[0].get("heavy", []),
            "runs": runs,
        }
        for name, found in samples.items()
    }
    peer = rows.pop(_PEER, None)
    document: dict[str, Any] = {
        "cpu": device_facts().cpu,
        "artefacts": [{"artefact": name, **row} for name, row in rows.items()],
    }
    if peer is not None:
        document["peer"] = peer
        document["ratios"] = {
            name: {key: row[key] / peer[key] for key in ("process_seconds", "peak_mb")} for name, row in rows.items()
        }
    if json:
        emit_json(document)
    print_table(
        f"first label, {bundle}: median of {runs} processes, largest peak",
        ("artefact", "import to label s", "whole process s", "peak MB"),
        [
            (name, f"{row['seconds']:.2f}", f"{row['process_seconds']:.2f}", f"{row['peak_mb']:.0f}")
            for name, row in (rows | ({} if peer is None else {_PEER: peer})).items()
        ],
    )


def _first_label(bundle: Path, picture: Path, artefact: str) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
        [sys.executable, "-c", _CHILD, str(bundle), str(picture), artefact], capture_output=True, text=True, check=True
    )
    document: dict[str, Any] = json_module.loads(done.stdout)
    return document


if __name__ == "__main__":
    run_script(main)
