"""`edgewright verify` and `val`: does it compute what was trained, and how well?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.command_options import DeviceOption, UrlOption
from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.errors import GateError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.manifest import Artefact
    from edgewright.runtime.verify import Verification

__all__ = ["runnable_artefacts", "val_command", "verify_command", "verify_document"]

BundleArgument = Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ArtefactOption = Annotated[Optional[str], typer.Option(help="Only this artefact, for example model.int8.ort-x86.")]


def runnable_artefacts(bundle: Bundle, name: str | None, device: str | None = None) -> list[Artefact]:
    """The artefact called `name`, or all that this machine can run on `device`; says which are passed over.

    Raises:
        BundleError: no artefact of that name.
        UsageError: none runs here, or none on that device; says what each engine has.
        MissingExtraError: its engine is not installed.
    """
    from edgewright.runtime.backends import BACKENDS, EngineSettings, backend_available
    from edgewright.runtime.loading import why_not_as_declared, why_not_here

    wanted = bundle.manifest.artefacts if name is None else (bundle.manifest.artefact(name),)
    # Without a device it is the CPU, which may lack the instructions: bf16 is exported where the exporting CPU has them.
    reasons = {
        artefact.name: why_not_here(artefact, device or (None if artefact.backend == "tensorrt" else "cpu"))
        for artefact in wanted
    }
    if name is None:
        # One that was asked for by its name is an error when it is loaded, not passed over.
        for artefact in wanted:
            reasons[artefact.name] = reasons[artefact.name] or why_not_as_declared(
                bundle, artefact, EngineSettings(device)
            )
    runnable = [artefact for artefact in wanted if not reasons[artefact.name]]
    if not runnable:
        missing = sorted({artefact.backend for artefact in wanted if not backend_available(artefact.backend)})
        if missing and device is None:
            raise MissingExtraError(missing[0], BACKENDS[missing[0]].extra or missing[0])
        why = "; ".join(dict.fromkeys(reason.rstrip(".") for reason in reasons.values()))
        raise UsageError(f"'{wanted[0].name if name else bundle.path}' cannot run here: {why}.")
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


def verify_command(
    bundle: BundleArgument, device: DeviceOption = None, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Prove that this machine decodes, preprocesses and computes as training did."""
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.remote.settings import RemoteSettings
    from edgewright.runtime.verify import verify_bundle

    settings = EngineSettings(device, remote=None if url is None else RemoteSettings(url))
    opened = open_bundle(bundle)
    if device is not None:
        # Refuses a device that has no artefact: a verification of nothing would pass.
        runnable_artefacts(opened, None, device)
    results = verify_bundle(opened, settings)
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
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the accuracy of every artefact on labelled pictures."""
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.folders import SPLIT_NAMES
    from edgewright.runtime.validate import labelled_pictures, validate

    if split is not None and split not in SPLIT_NAMES:
        raise UsageError(f"--split {split}: expected one of {', '.join(SPLIT_NAMES)}.")
    opened = open_bundle(bundle)
    pictures = labelled_pictures(data, opened.manifest.labels, split)
    result = validate(opened, runnable_artefacts(opened, artefact, device), pictures, EngineSettings(device))
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
