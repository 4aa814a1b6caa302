"""`edgewright quickstart`: the whole path on data and weights that come with the packages, without a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgewright.runtime.console import emit_json, notice
from edgewright.runtime.errors import GateError
from edgewright.runtime.extras import require

__all__ = ["quickstart_command"]

_GATE_TOP1 = 0.95


def quickstart_command(
    out: Annotated[
        Optional[Path], typer.Option(help="Where the run and the bundle go. (default: runs/quickstart)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Splits, initialisation and augmentation.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train, export, quantize, verify and benchmark a classifier of handwritten digits, in about a minute."""
    started = time.perf_counter()
    require("all", "torch", "torchvision", "sklearn", "onnx", "onnxscript", "openvino", "nncf")
    from edgewright.benchmarks.bench import bench, quick_plan
    from edgewright.benchmarks.commands import print_bench
    from edgewright.export.commands import export_document, print_export
    from edgewright.export.config import ExportConfig
    from edgewright.export.exporter import export
    from edgewright.runtime.commands import runnable_artefacts, verify_document
    from edgewright.runtime.verify import verify_bundle
    from edgewright.train.backbones.weights import BUILTIN_BACKBONE
    from edgewright.train.commands import train_document
    from edgewright.train.config import TrainConfig
    from edgewright.train.trainer import train

    folder = out or Path("runs") / "quickstart"
    notice("1/4 train: scikit-learn's handwritten digits, built-in weights")
    run = train(
        TrainConfig(
            data="digits",
            backbone=BUILTIN_BACKBONE,
            weights="builtin",
            strategy="full",
            imgsz=48,
            epochs=10,
            # Digits are far from the photographs of the built-in weights: much has to change.
            lr=3e-3,
            out=str(folder / "run"),
            seed=seed,
        ),
        overwrite=True,
    )
    notice(f"    top-1: validation {run.record.val_top1:.4f}, test {run.record.test_top1:.4f}")
    notice("2/4 export: ONNX and OpenVINO, FP32 and INT8, each proven against the trained model")
    exported = export(ExportConfig(run=str(run.folder), out=folder / "bundle"))
    print_export(exported)
    notice("3/4 verify: golden vectors through every artefact")
    verified = verify_document(verify_bundle(exported.bundle))
    notice("4/4 bench: picture to label")
    artefacts = runnable_artefacts(exported.bundle, None)
    measured = bench(exported.bundle, artefacts, quick_plan(artefacts, seconds_each=2)).document
    print_bench(str(exported.bundle.path), measured)
    seconds = time.perf_counter() - started
    if json:
        emit_json(
            {
                "run": str(run.folder),
                "bundle": str(exported.bundle.path),
                "train": train_document(run),
                "export": export_document(exported),
                "verify": verified,
                "bench": measured.as_json(),
                "seconds": seconds,
            }
        )
    picture = exported.bundle.path / exported.bundle.manifest.golden[0].image
    notice(f"done in {seconds:.0f} s; report: {exported.bundle.path / 'report' / 'report.md'}")
    notice(f"next: edgewright predict {exported.bundle.path} {picture}")
    if not verified["passed"]:
        raise GateError("Verification failed: an artefact does not compute what the trained model computed.")
    best = [artefact.test_top1 for artefact in exported.bundle.manifest.artefacts if artefact.test_top1 is not None]
    if max(best) < _GATE_TOP1:
        raise GateError(
            f"The exported model is right on {max(best):.1%} of held-back digits; expected {_GATE_TOP1:.0%}."
        )
