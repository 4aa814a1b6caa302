"""Compiling a bundle's artefacts on the device that will run them: TensorRT engines, OpenVINO's model cache."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgewright.runtime.backends.base import DEFAULT_SETTINGS, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import load_request
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.extras import require
from edgewright.runtime.files import atomic_directory
from edgewright.runtime.manifest import Artefact, Manifest
from edgewright.runtime.openvino_cache import checked_cache, seal_cache
from edgewright.runtime.tensorrt.options import BuildOptions, Precision, as_precision, trtexec_command

__all__ = [
    "CompiledEngine",
    "CompiledModel",
    "Target",
    "compile_openvino",
    "compile_tensorrt",
    "openvino_targets",
    "tensorrt_target",
    "trtexec_for",
]

FIRST_TYPED = 11
"""From this version of TensorRT on, a graph has to be fp16 itself to run in fp16."""


@dataclass(frozen=True)
class Target:
    """An ONNX artefact, and the precision to build it in."""

    artefact: Artefact
    precision: Precision


@dataclass(frozen=True)
class CompiledEngine:
    """A TensorRT engine in the device's cache.

    Attributes:
        state: "fresh" if it was there already; else why it was built: absent, stale, foreign, corrupt, forced.
        layers: How many layers compute in each precision; "" for those that do not tell.
        batches: Smallest and largest batch of one execution.
    """

    artefact: str
    precision: str
    state: str
    reason: str
    engine: str
    size_bytes: int
    build_seconds: float
    gpu: str
    tensorrt: str
    batches: tuple[int, int]
    layers: dict[str, int]


@dataclass(frozen=True)
class CompiledModel:
    """A model in OpenVINO's cache: how long loading takes without and with it, in milliseconds.

    `device` is OpenVINO's name of it. `state` is "fresh" if the cache had it already; `first_load_ms` is then None.
    """

    artefact: str
    precision: str
    device: str
    state: str
    cache: str
    first_load_ms: float | None
    cached_load_ms: float


def tensorrt_target(manifest: Manifest, artefact: str | None, precision: str | None, major: int) -> Target:
    """Which ONNX file is built, and in which precision.

    Without a name: int8 from the artefact quantized for TensorRT if the bundle has one, else fp16. fp16 is built from
    the fp32 file with TensorRT's flag before version 11, from the fp16 file since.

    Raises:
        BundleError: no artefact of that name.
        UsageError: the bundle has nothing suitable, or the two do not go together.
    """
    wanted = None if precision is None else as_precision(precision)
    if artefact is not None:
        named = manifest.artefact(artefact)
        return _named_target(named, wanted or as_precision(named.precision), major)
    candidates = [other for other in manifest.artefacts if _is_onnx(other)]
    quantized = [other for other in candidates if other.backend == "tensorrt" and other.precision == "int8"]
    chosen: Precision = wanted or ("int8" if quantized else "fp16")
    source = "fp32" if chosen == "fp16" and major < FIRST_TYPED else chosen
    found = quantized if chosen == "int8" else [other for other in candidates if other.precision == source]
    if not found:
        has = ", ".join(other.name for other in manifest.artefacts)
        form = "tensorrt" if chosen == "int8" else "onnx"
        raise UsageError(
            f"The bundle has no artefact to build in {chosen} with TensorRT {major}. It has: {has}. "
            f"Export it again with --formats {form} --precisions {source}."
        )
    return Target(found[0], chosen)


def _is_onnx(artefact: Artefact) -> bool:
    return artefact.file.endswith(".onnx")


def _named_target(artefact: Artefact, precision: Precision, major: int) -> Target:
    if not _is_onnx(artefact):
        raise UsageError(f"'{artefact.name}' is made for {artefact.backend}. TensorRT builds from an ONNX artefact.")
    if artefact.precision == "int8" and artefact.backend != "tensorrt":
        raise UsageError(
            f"'{artefact.name}' is quantized in a way that TensorRT refuses. "
            "Export one for it: --formats tensorrt --precisions int8."
        )
    allowed = (
        {artefact.precision, "fp16"} if artefact.precision == "fp32" and major < FIRST_TYPED else {artefact.precision}
    )
    if precision not in allowed:
        raise UsageError(
            f"'{artefact.name}' cannot be built in {precision} with TensorRT {major}; expected {' or '.join(sorted(allowed))}."
        )
    return Target(artefact, precision)


def compile_tensorrt(bundle: Bundle, target: Target, options: BuildOptions, *, force: bool = False) -> CompiledEngine:
    """Build the engine, or find that the kept one is right; either way it has been loaded once.

    Raises:
        MissingExtraError: TensorRT or cuda-python is not installed.
        BackendError: no GPU, or TensorRT cannot build it.
    """
    from edgewright.runtime.tensorrt.cache import EngineCache
    from edgewright.runtime.tensorrt.cuda import load_cuda
    from edgewright.runtime.tensorrt.engines import prepare_engine
    from edgewright.runtime.tensorrt.library import load_tensorrt

    trt, cuda = load_tensorrt(), load_cuda()
    model, _ = bundle.artefact_bytes(target.artefact)
    cache = EngineCache()
    prepared = prepare_engine(trt, cuda, model, options, name=target.artefact.name, cache=cache, force=force)
    try:
        layers = prepared.runner.layers()
        batches = prepared.runner.batches
    finally:
        prepared.runner.close()
    record = prepared.record
    return CompiledEngine(
        artefact=target.artefact.name,
        precision=target.precision,
        state=prepared.state,
        reason=prepared.reason,
        engine=str(cache.engine_file(record.key)),
        size_bytes=record.size_bytes,
        build_seconds=record.build_seconds,
        gpu=record.key.gpu,
        tensorrt=record.key.tensorrt,
        batches=batches,
        layers=layers.precisions(),
    )


def trtexec_for(bundle: Bundle, target: Target, options: BuildOptions, major: int) -> str:
    """The `trtexec` command line for the same engine. Needs neither TensorRT nor a GPU."""
    manifest = bundle.manifest
    name = target.artefact.name
    return trtexec_command(
        options,
        onnx=str(bundle.path / target.artefact.file),
        engine=f"{name}.{target.precision}.engine" if target.precision not in name else f"{name}.engine",
        timing_cache="timing.cache",
        inputs={manifest.input.name: manifest.input.in_layout(target.artefact.layout).shape},
        major=major,
    )


def openvino_targets(manifest: Manifest, artefact: str | None, precision: str | None) -> list[Artefact]:
    """The OpenVINO artefacts called `artefact`, of `precision`, or all of them.

    Raises:
        BundleError: no artefact of that name.
        UsageError: none fits.
    """
    wanted = manifest.artefacts if artefact is None else (manifest.artefact(artefact),)
    found = [
        other for other in wanted if other.backend == "openvino" and (precision is None or other.precision == precision)
    ]
    if not found:
        raise UsageError(
            f"The bundle has no such OpenVINO artefact. It has: {', '.join(other.name for other in manifest.artefacts)}."
        )
    return found


def compile_openvino(
    bundle: Bundle, artefact: Artefact, *, settings: EngineSettings = DEFAULT_SETTINGS, force: bool = False
) -> CompiledModel:
    """Let OpenVINO compile and keep the model, then load it once more from what was kept.

    What is kept is for these settings: `load` finds it if it is told the same device, threads and streams.

    Raises:
        UsageError: this machine has no such device.
        MissingExtraError: OpenVINO is not installed.
        BackendError: the model is refused, see :class:`~edgewright.runtime.backends.openvino.OpenVinoBackend`, or OpenVINO
            keeps nothing on this device.
    """
    require("openvino", "openvino")
    from edgewright.runtime.backends.openvino import choose_device, compile_ir, kept_in

    request = load_request(bundle, artefact, settings)
    device = choose_device(request)
    folder = kept_in(request, device)

    def load(cache: Path) -> tuple[float, bool]:
        start = time.perf_counter()
        compiled = compile_ir(request, cache, device)
        return (time.perf_counter() - start) * 1e3, bool(compiled.get_property("LOADED_FROM_CACHE"))

    if not force and checked_cache(folder) is not None:
        cached_ms, from_cache = load(folder)
        if from_cache:
            return CompiledModel(
                artefact.name,
                artefact.precision,
                device,
                "fresh",
                str(folder),
                first_load_ms=None,
                cached_load_ms=cached_ms,
            )
    # Beside, and at its place only when it has been loaded once: no other process finds a half of it.
    with atomic_directory(folder) as new:
        first_ms, _ = load(new)
        seal_cache(new)
        cached_ms, from_cache = load(new)
        if not from_cache:
            # A full disk is no error to OpenVINO: it writes nothing then, and says nothing.
            raise BackendError(
                f"OpenVINO did not take '{artefact.name}' from its cache in '{folder}'. Either there was no room to write "
                "it, or this device's plugin keeps no models, and it is compiled at every start."
            )
    return CompiledModel(artefact.name, artefact.precision, device, "absent", str(folder), first_ms, cached_ms)
