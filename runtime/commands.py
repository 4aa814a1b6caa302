"""`edgewright verify`, `val` and `predict`: what a device runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.errors import EdgewrightError, GateError, ImageError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.manifest import Artefact
    from edgewright.runtime.verify import Verification

__all__ = ["predict_command", "runnable_artefacts", "val_command", "verify_command", "verify_document"]

BundleArgument = Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ArtefactOption = Annotated[Optional[str], typer.Option(help="Only this artefact, for example model.int8.ort-x86.")]


def runnable_artefacts(bundle: Bundle, name: str | None) -> list[Artefact]:
    """The artefact called `name`, or all that this machine can run; says which are passed over.

    Raises:
        BundleError: no artefact of that name.
        MissingExtraError: its engine is not installed.
    """
    from edgewright.runtime.backends import BACKENDS, backend_available
    from edgewright.runtime.loading import why_not_here

    wanted = bundle.manifest.artefacts if name is None else (bundle.manifest.artefact(name),)
    reasons = {artefact.name: why_not_here(artefact) for artefact in wanted}
    runnable = [artefact for artefact in wanted if not reasons[artefact.name]]
    if not runnable:
        missing = sorted({artefact.backend for artefact in wanted if not backend_available(artefact.backend)})
        if missing:
            raise MissingExtraError(missing[0], BACKENDS[missing[0]].extra or missing[0])
        raise UsageError(f"'{wanted[0].name}' cannot run here: {reasons[wanted[0].name]}.")
    for artefact in wanted:
        if artefact not in runnable:
            notice(f"'{artefact.name}' is passed over: {reasons[artefact.name]}")
    return runnable


def verify_document(results: list[Verification]) -> dict[str, Any]:
    """The `--json` document of verify. Passed: at least one artefact ran, and each that ran passed."""
    ran = [result for result in results if result.passed is not None]
    return {
        "passed": bool(ran) and all(result.passed for result in ran),
        "artefacts": [asdict(result) for result in results],
    }


def verify_command(bundle: BundleArgument, json: JsonOption = False) -> None:
    """Prove that this machine decodes, preprocesses and computes as training did."""
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.verify import verify_bundle

    opened = open_bundle(bundle)
    results = verify_bundle(opened)
    document = verify_document(results)
    if json:
        emit_json(document)
    print_table(
        f"{bundle}: {len(opened.manifest.golden)} golden vectors",
        ("artefact", "", "tensor difference", "logit difference", "allowed"),
        [
            (
                result.name,
                {True: "passed", False: "FAILED", None: "not run"}[result.passed],
                result.tensor_max_abs_diff,
                None if result.max_abs_logit_diff is None else f"{result.max_abs_logit_diff:.4g}",
                f"{result.allowed_logit_diff:.4g}",
            )
            for result in results
        ],
    )
    for result in results:
        if result.reason:
            notice(f"{result.name}: {result.reason}")
    if not document["passed"]:
        raise GateError("Verification failed: this machine does not compute what the trained model computed.")
    notice(f"next: edgewright bench {bundle}")


def val_command(
    bundle: BundleArgument,
    data: Annotated[Path, typer.Argument(help="Pictures in a folder per class, below test/ or val/ or not.")],
    split: Annotated[
        Optional[str], typer.Option(help="train, val or test. (default: test, else val, else the folder)")
    ] = None,
    artefact: ArtefactOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the accuracy of every artefact on labelled pictures."""
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.folders import SPLIT_NAMES
    from edgewright.runtime.validate import labelled_pictures, validate

    if split is not None and split not in SPLIT_NAMES:
        raise UsageError(f"--split {split}: expected one of {', '.join(SPLIT_NAMES)}.")
    opened = open_bundle(bundle)
    pictures = labelled_pictures(data, opened.manifest.labels, split)
    result = validate(opened, runnable_artefacts(opened, artefact), pictures)
    for file, why in result.unreadable:
        warn(f"left out: {file}: {why}")
    if json:
        emit_json(
            {
                "artefacts": [asdict(row) for row in result.artefacts],
                "unreadable": [{"file": file, "why": why} for file, why in result.unreadable],
            }
        )
    print_table(
        f"{bundle} on {data}: {result.artefacts[0].images} pictures, {len(result.unreadable)} unreadable",
        ("artefact", "top-1", "top-5", "engine time"),
        [(row.name, f"{row.top1:.4f}", f"{row.top5:.4f}", f"{row.seconds:.1f} s") for row in result.artefacts],
    )


def predict_command(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    artefact: ArtefactOption = None,
    backend: Annotated[Optional[str], typer.Option(help="onnxruntime or openvino. (default: the artefact's)")] = None,
    threads: Annotated[
        Optional[int], typer.Option(min=1, max=1024, help="Threads for one inference. (default: all cores)")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to list.")] = 5,
    json: JsonOption = False,
) -> None:
    """Label pictures. One that cannot be read gets an error, the others their labels."""
    from edgewright.runtime.folders import pictures_in
    from edgewright.runtime.loading import load

    files = [file for path in images for file in (pictures_in(path) if path.is_dir() else [path])]
    if not files:
        raise UsageError(f"No pictures in {', '.join(str(path) for path in images)}.")
    predictions: list[dict[str, Any]] = []
    failed = 0
    with load(bundle, artefact, backend, threads) as classifier:
        for file in files:
            try:
                prediction = classifier(file, top_k)
            except ImageError as error:
                failed += 1
                predictions.append({"file": str(file), "error": str(error)})
                if not json:
                    warn(str(error))
                continue
            timings = {name.removesuffix("_ms"): value for name, value in asdict(prediction.timings).items()}
            predictions.append(
                {
                    "file": str(file),
                    "label": prediction.label,
                    "index": prediction.index,
                    "score": prediction.score,
                    "top_k": [{"label": found.label, "score": found.score} for found in prediction.top_k],
                    "timings_ms": timings,
                }
            )
            if not json:
                others = ", ".join(f"{found.label} {found.score:.3f}" for found in prediction.top_k[1:3])
                print(f"{file}\t{prediction.label}\t{prediction.score:.3f}\t({others})")
    if json:
        emit_json({"predictions": predictions})
    if failed:
        raise EdgewrightError(f"{failed} of {len(files)} pictures could not be read; the others have their labels.")
