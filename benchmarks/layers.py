"""Where the time goes inside an engine: each layer as it was executed, its time, and the precision that it really ran in."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.benchmarks.reports import LayerTime
from edgewright.benchmarks.subjects import golden_pictures
from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import load_request
from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.parallel import threads_per_stream
from edgewright.runtime.preprocess import in_layout, preprocess

__all__ = ["layer_tables", "profile_layers"]

_REPEATS = 30
_WARM_UP = 5


def profile_layers(
    bundle: Bundle, artefact: Artefact, pixels: npt.NDArray[np.uint8], settings: EngineSettings
) -> list[LayerTime]:
    """Each layer's median time over 30 inferences, the slowest first.

    Profiling slows an engine a little; what counts are the shares.

    Args:
        bundle: Where the artefact is from.
        artefact: What to look into.
        pixels: uint8 (N, height, width, 3) at model size.
        settings: Device and threads.

    Raises:
        BackendError: the engine tells nothing of its layers.
    """
    feeds = {bundle.manifest.input.name: in_layout(pixels, artefact.layout)}
    of_engine = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tensorrt": _tensorrt}[artefact.backend]
    found = of_engine(bundle, artefact, feeds, settings)
    if not found:
        raise BackendError(f"{artefact.backend} told nothing of the layers of '{artefact.name}'.")
    whole = sum(layer.ms for layer in found) or 1.0
    shared = [LayerTime(one.layer, one.kind, one.precision, one.ms, one.ms / whole) for one in found]
    return sorted(shared, key=lambda layer: -layer.ms)


def _onnxruntime(
    bundle: Bundle, artefact: Artefact, feeds: Mapping[str, npt.NDArray[Any]], settings: EngineSettings
) -> list[LayerTime]:
    import onnxruntime as ort

    from edgewright.runtime.backends.onnxruntime import session_options, session_providers

    request = load_request(bundle, artefact, settings)
    device = settings.device_or()
    options = session_options(device, threads_per_stream(settings.threads, settings.streams))
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgewright-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "layers")
        session = ort.InferenceSession(
            request.model,
            sess_options=options,
            providers=session_providers(device, request.precision),
            enable_fallback=0,
        )
        names = [output.name for output in session.get_outputs()]
        for _ in range(_WARM_UP + _REPEATS):
            session.run(names, dict(feeds))
        return parse_onnxruntime_profile(Path(session.end_profiling()).read_text())


def parse_onnxruntime_profile(text: str) -> list[LayerTime]:
    """Medians of the kernels in a profile of ONNX Runtime (Chrome's trace format), warm-up left out.

    Precision is that of the first input: `u8` and `i8` are what an INT8 kernel reads, whatever it is called.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    told: dict[str, tuple[str, str]] = {}
    for event in json.loads(text):
        name, details = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        layer = name.removesuffix("_kernel_time")
        times[layer].append(event["dur"] / 1e3)
        inputs = details.get("input_type_shape") or [{}]
        told[layer] = str(details.get("op_name", "")), next(iter(inputs[0]), "")
    return [
        LayerTime(layer, told[layer][0], _precision(told[layer][1]), median(found[_WARM_UP:] or found), 0.0)
        for layer, found in times.items()
    ]


def _openvino(
    bundle: Bundle, artefact: Artefact, feeds: Mapping[str, npt.NDArray[Any]], settings: EngineSettings
) -> list[LayerTime]:
    from edgewright.runtime.backends.openvino import choose_device, compile_ir

    request = load_request(bundle, artefact, settings)
    compiled = compile_ir(request, None, choose_device(request), profiled=True)
    infer = compiled.create_infer_request()
    times: defaultdict[str, list[float]] = defaultdict(list)
    told: dict[str, tuple[str, str]] = {}
    for repeat in range(_WARM_UP + _REPEATS):
        infer.infer(dict(feeds), share_inputs=True)
        for layer in infer.get_profiling_info() if repeat >= _WARM_UP else ():
            if milliseconds := layer.real_time.total_seconds() * 1e3:
                times[layer.node_name].append(milliseconds)
                told[layer.node_name] = layer.node_type, layer.exec_type
    return [
        LayerTime(name, told[name][0], _precision(told[name][1].rpartition("_")[2]), median(found), 0.0)
        for name, found in times.items()
    ]


def _tensorrt(
    bundle: Bundle, artefact: Artefact, feeds: Mapping[str, npt.NDArray[Any]], settings: EngineSettings
) -> list[LayerTime]:
    from edgewright.runtime.backends.tensorrt import TensorRtBackend

    engine = TensorRtBackend(load_request(bundle, artefact, settings))
    try:
        told = {layer.name: layer for layer in engine.layers().layers}
        times = engine.layer_times(feeds, _REPEATS)
    finally:
        engine.close()
    return [
        LayerTime(name, told[name].kind if name in told else "", told[name].precision if name in told else "", ms, 0.0)
        for name, ms in times.items()
    ]


_PRECISIONS = (
    (r"u8|i8|uint8|int8", "int8"),
    (r"bf16|bfloat16", "bf16"),
    (r"f16|fp16|float16", "fp16"),
    (r"f32|fp32|float|float32", "fp32"),
    (r"i32|int32", "int32"),
    (r"i64|int64", "int64"),
)


def _precision(kind: str) -> str:
    """The engine's name of a type as one of ours; its own where we have none."""
    plain = re.fullmatch(r"(?:tensor\()?([A-Za-z0-9]*)\)?", kind)
    lowered = plain[1].lower() if plain else ""
    return next((ours for names, ours in _PRECISIONS if re.fullmatch(names, lowered)), lowered)


def layer_tables(bundle: Bundle, artefacts: Sequence[Artefact], settings: EngineSettings) -> dict[str, list[LayerTime]]:
    """:func:`profile_layers` of several artefacts on the first golden picture, by name; an engine that does not tell is passed
    over with a warning.
    """
    pixels = preprocess(golden_pictures(bundle)[0], bundle.manifest.preprocess)[np.newaxis]
    found = {}
    for artefact in artefacts:
        try:
            found[artefact.name] = profile_layers(bundle, artefact, pixels, settings)
        except (BackendError, RuntimeError) as error:  # OpenVINO's are RuntimeErrors
            warn(f"no layers of '{artefact.name}': {error}")
    return found
