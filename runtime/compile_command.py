"""`edgewright compile`: on the device, once, what would otherwise be done at every start."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgewright.runtime.command_options import DeviceOption
from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle

__all__ = ["compile_command"]

ASSUMED_MAJOR = 10


class CompileBackend(str, Enum):
    """Engines that gain from compiling on the device."""

    tensorrt = "tensorrt"
    openvino = "openvino"


def compile_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    backend: Annotated[CompileBackend, typer.Option(help="The engine to compile for.")],
    artefact: Annotated[
        Optional[str], typer.Option(help="Only this artefact, for example model.int8.trt. (default: what suits)")
    ] = None,
    precision: Annotated[
        Optional[str],
        typer.Option(help="fp32, fp16 or int8. (default: int8 if the bundle has it for TensorRT, else fp16)"),
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Batch sizes MIN,OPT,MAX that a TensorRT engine accepts and is tuned for.")
    ] = "1,1,16",
    workspace_mb: Annotated[int, typer.Option(min=1, help="Most scratch memory of a layer, in MiB.")] = 1024,
    dla: Annotated[
        Optional[int], typer.Option(min=0, help="Core of the deep learning accelerator; the GPU does the rest.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="The engine loads in later versions of TensorRT too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="The engine runs on other GPUs too, Ampere and later.")
    ] = False,
    device: DeviceOption = None,
    timing_cache: Annotated[bool, typer.Option(help="Keep measured kernel times for the next build.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Compile again even if the kept result is right.")] = False,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print the equivalent trtexec command line, and build nothing.")
    ] = False,
    trt_version: Annotated[
        Optional[str], typer.Option(help="TensorRT's version for --print-trtexec. (default: the installed one)")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compile a bundle's artefacts for this device and keep the result in the device's cache."""
    from edgewright.runtime.bundle import open_bundle

    if backend is CompileBackend.openvino:
        if print_trtexec or dla is not None:
            raise UsageError("--print-trtexec and --dla are TensorRT's. Choose --backend tensorrt.")
        _compile_for_openvino(open_bundle(bundle), artefact, precision, device, force=force, json=json)
        return
    if device is not None:
        raise UsageError("--device is for --backend openvino. A TensorRT engine is built for the current NVIDIA GPU.")
    from edgewright.runtime.compile import compile_tensorrt, tensorrt_target, trtexec_for
    from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions

    opened = open_bundle(bundle)
    profile = BatchProfile.parse(batch)
    if trt_version is not None and not print_trtexec:
        raise UsageError("--trt-version goes with --print-trtexec; a build uses the installed TensorRT.")
    major = _major_version(trt_version, needed=not print_trtexec)
    target = tensorrt_target(opened.manifest, artefact, precision, major)
    options = BuildOptions(
        target.precision, profile, workspace_mb, timing_cache, dla, version_compatible, hardware_compatible
    )
    if print_trtexec:
        line = trtexec_for(opened, target, options, major)
        if json:
            emit_json({"bundle": str(bundle), "artefact": target.artefact.name, "trtexec": line})
        else:
            print(line)
        return
    engine = compile_tensorrt(opened, target, options, force=force)
    if json:
        emit_json({"bundle": str(bundle), "backend": backend.value, "engines": [asdict(engine)]})
    print_table(
        f"{bundle}: TensorRT {engine.tensorrt} on {engine.gpu}",
        ("artefact", "precision", "cache", "build", "size", "batches", "layers"),
        [
            (
                engine.artefact,
                engine.precision,
                engine.state,
                f"{engine.build_seconds:.1f} s",
                f"{engine.size_bytes / 1e6:.1f} MB",
                f"{engine.batches[0]}–{engine.batches[1]}",
                ", ".join(f"{count} {name or 'untold'}" for name, count in engine.layers.items()),
            )
        ],
    )
    notice(f"engine: {engine.engine}")
    notice(f"next: edgewright bench {bundle}")


def _major_version(told: str | None, *, needed: bool) -> int:
    """TensorRT's major version: the one told, else the installed one's, else, if it is not needed to build, a guess."""
    from edgewright.runtime.tensorrt.library import load_tensorrt, parse_version

    if told is not None:
        return parse_version(told)[0]
    try:
        return parse_version(load_tensorrt().__version__)[0]
    except MissingExtraError:
        if needed:
            raise
    notice(f"TensorRT is not installed here: written for version {ASSUMED_MAJOR}; --trt-version chooses another")
    return ASSUMED_MAJOR


def _compile_for_openvino(
    opened: Bundle, artefact: str | None, precision: str | None, device: str | None, *, force: bool, json: bool
) -> None:
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.compile import compile_openvino, openvino_targets

    settings = EngineSettings(device=device)
    targets = openvino_targets(opened.manifest, artefact, precision)
    models = [compile_openvino(opened, target, settings=settings, force=force) for target in targets]
    if json:
        emit_json({"bundle": str(opened.path), "backend": "openvino", "models": [asdict(model) for model in models]})
    print_table(
        f"{opened.path}: OpenVINO's model cache",
        ("artefact", "precision", "device", "cache", "first load", "load from the cache"),
        [
            (
                model.artefact,
                model.precision,
                model.device,
                model.state,
                None if model.first_load_ms is None else f"{model.first_load_ms:.0f} ms",
                f"{model.cached_load_ms:.0f} ms",
            )
            for model in models
        ],
    )
    notice(f"next: edgewright bench {opened.path}")
