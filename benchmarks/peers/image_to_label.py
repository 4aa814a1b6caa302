"""From a picture's file to its label: ours, eager torch with torchvision's transforms, and Ultralytics with OpenVINO.

    python -m edgewright.benchmarks.peers.image_to_label BUNDLE [--data DATA] [--json]

Each way is a process of its own, and they take turns on the same JPEG files; torch in a process slows every other engine in it.
Ultralytics is measured if --ultralytics-python names an interpreter that has it:

    uv venv ultra-env && VIRTUAL_ENV=ultra-env uv pip install ultralytics openvino
    python -m edgewright.benchmarks.peers.image_to_label BUNDLE --ultralytics-python ultra-env/bin/python
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer

from edgewright.benchmarks.peers.sides import (
    ULTRALYTICS,
    Side,
    in_turns,
    machine,
    pictures_of,
    run_script,
    ultralytics,
)
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, print_table

__all__ = ["compare_ways"]


def compare_ways(
    bundle: Path,
    pictures: list[str],
    *,
    artefact: str | None,
    rounds: int,
    seconds: float,
    ultralytics_python: Path | None,
) -> dict[str, Any]:
    """Median milliseconds of each way.

    Returns:
        `ours_ms`; `peers` with milliseconds by name; `ratios`: ours over each.
    """
    manifest = open_bundle(bundle).manifest
    named = artefact or manifest.recommended
    backbone = manifest.provenance.backbone
    common: dict[str, Any] = {
        "pictures": pictures,
        "rounds": rounds,
        "seconds": seconds,
        "classes": len(manifest.labels),
    }
    command = [sys.executable, "-m", "edgewright.benchmarks.peers.picture_sides"]
    spec = manifest.preprocess.model_dump(mode="json")
    sides = {
        "ours": Side("ours", command, common | {"way": "edgewright", "bundle": str(bundle), "artefact": named}),
        "torchvision + eager torch": Side(
            "eager torch", command, common | {"way": "torch", "backbone": backbone, "preprocess": spec}
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in (ULTRALYTICS, backbone) if ultralytics_python is not None else ():
            assert ultralytics_python is not None
            request = {"model": model, "classes": len(manifest.labels), "imgsz": manifest.preprocess.crop}
            exported = ultralytics(ultralytics_python, {"do": "export", "folder": folder, **request}).run()
            asked = common | {"do": "label", "path": exported["path"], "imgsz": manifest.preprocess.crop}
            sides[f"Ultralytics, {model}"] = ultralytics(ultralytics_python, asked)
        in_turns(list(sides.values()))
    p50 = {name: float(np.median(side.result["ms"])) for name, side in sides.items()}
    mine = p50.pop("ours")
    return {
        "ours_ms": mine,
        "artefact": named,
        "peers": p50,
        "ratios": {name: mine / ms for name, ms in p50.items()},
        "samples": {name: len(side.result["ms"]) for name, side in sides.items()},
        "pictures": len(pictures),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a network of torchvision's.")],
    data: Annotated[
        Optional[Path], typer.Option(help="A folder with JPEG files. (default: ../shared/data/clothing)")
    ] = None,
    artefact: Annotated[Optional[str], typer.Option(help="Of the bundle. (default: the recommended one)")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="How many files, evenly spread.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a turn.")] = 2.0,
    ultralytics_python: Annotated[
        Optional[Path], typer.Option(help="Also Ultralytics, with this interpreter of an environment that has it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure all ways."""
    facts = machine()
    document = compare_ways(
        bundle,
        pictures_of(data, pictures),
        artefact=artefact,
        rounds=rounds,
        seconds=seconds,
        ultralytics_python=ultralytics_python,
    )
    if json:
        emit_json({**document, "device": facts})
    rows = [("ours, " + document["artefact"], document["ours_ms"], 1.0)]
    rows += [(name, ms, document["ratios"][name]) for name, ms in document["peers"].items()]
    print_table(
        "picture file to label, p50",
        ("way", "ms", "ours takes"),
        [(name, f"{ms:.2f}", f"{ratio:.2f} of it") for name, ms, ratio in rows],
    )


if __name__ == "__main__":
    run_script(main)
