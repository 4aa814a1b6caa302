"""OpenVINO, on the CPU or on Intel's GPU and NPU, in the precision it was told."""

from __future__ import annotations

import functools
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends.base import EngineClock, Execution, LoadRequest, TensorSpec, check_feeds, run_in_parts
from edgewright.runtime.backends.devices import Device, no_such_device, parse_device
from edgewright.runtime.backends.lifetime import Lifetime
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.errors import BackendError, PrecisionError, UsageError
from edgewright.runtime.openvino_cache import cache_folder, checked_cache, compile_settings, precision_hint
from edgewright.runtime.silent_openvino import ov

__all__ = [
    "OpenVinoBackend",
    "choose_device",
    "compile_ir",
    "devices",
    "executable_precisions",
    "executed_in",
    "kept_in",
    "one_at_a_time",
    "why_not_on",
]

_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}

# The layers that nearly all of the work is in, and the names of what they may be executed in.
_HEAVY = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm"}
_EXECUTED = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}


@functools.cache
def _core() -> Any:
    """OpenVINO's core, one for the process and never given up.

    With the last core and the last model OpenVINO would unload its CPU plugin, while threads that have computed with it
    still hold something of it: the process then crashes when they end.
    """
    return ov.Core()


def devices() -> tuple[str, ...]:
    """What OpenVINO has on this machine; `auto` is its own choice among them."""
    return (*(name.lower().replace(".", ":") for name in _core().available_devices), "auto")


def why_not_on(device: Device, precision: str) -> str:
    """Why this precision is not executed on this device here; empty if it is."""
    here = devices()
    if not device.is_among(here):
        return no_such_device(str(device), "openvino", here)
    names = _core().available_devices if device.kind == "auto" else [_openvino_name(device)]
    if any(precision in executable_precisions(name) for name in names):
        return ""
    found = sorted({other for name in names for other in executable_precisions(name)})
    return f"OpenVINO executes {', '.join(found)} on '{device}' here, not {precision}"


def _openvino_name(device: Device) -> str:
    return device.kind.upper() if device.index is None else f"{device.kind.upper()}.{device.index}"


def executable_precisions(device: str = "CPU") -> tuple[str, ...]:
    """What OpenVINO executes in hardware on a device of this machine, of fp32, bf16, fp16 and int8.

    It takes more hints than these: with AVX-512 but without its bf16 instructions it emulates bf16, slowly.
    """
    capabilities = _core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(precision for capability, precision in _CAPABILITIES.items() if capability in capabilities)


def choose_device(request: LoadRequest) -> str:
    """OpenVINO's name of the device that is asked for: "CPU", "GPU.1".

    For `auto` its own device AUTO is asked, with those devices left out that cannot execute the precision, and without its
    habit of beginning on the CPU and moving to another device later; what it takes is then compiled for like any other,
    because AUTO itself does not tell in which precision it executes.

    Raises:
        UsageError: this machine has no such device.
        BackendError: AUTO finds none, or cannot compile the model.
    """
    device = request.settings.device_or()
    if device.kind != "auto":
        if not device.is_among(devices()):
            raise UsageError(no_such_device(str(device), "openvino", devices()))
        return _openvino_name(device)
    if reason := why_not_on(device, request.precision):
        raise BackendError(f"'{request.name}': {reason}. Choose another artefact.")
    core = _core()
    unfit = [name for name in core.available_devices if request.precision not in executable_precisions(name)]
    name = "AUTO" + (":" + ",".join(f"-{other}" for other in unfit) if unfit else "")
    settings = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
    try:
        compiled = core.compile_model(_read_ir(core, request), name, settings)
        taken = list(compiled.get_property("EXECUTION_DEVICES"))
    except RuntimeError as error:
        raise BackendError(f"OpenVINO's AUTO cannot load '{request.name}': {_reason(error)}") from error
    if len(taken) != 1 or taken[0] not in core.available_devices:
        raise BackendError(
            f"OpenVINO's AUTO took {', '.join(taken)} for '{request.name}'. Name one of them with device."
        )
    return str(taken[0])


def kept_in(request: LoadRequest, device: str = "CPU") -> Path:
    """Where `edgewright compile` keeps what this machine's OpenVINO makes of the artefact for `device`."""
    return cache_folder(
        request.model,
        request.weights,
        request.precision,
        compile_settings(request.precision, request.settings, device, executable_precisions(device)),
        f"{device} {_core().get_property(device, 'FULL_DEVICE_NAME')}",
        ov.get_version(),
        request.settings.cache,
    )


def _read_ir(core: Any, request: LoadRequest) -> Any:
    if not request.model.startswith((b"<?xml", b"<net ")):
        # OpenVINO reads other formats as well, ONNX with tensors in any file of the machine among them. None of
        # them begins so; leading blanks are not skipped, as they could.
        raise BackendError(f"'{request.name}' is no OpenVINO IR. Its .xml file is expected to begin with '<?xml'.")
    weights = np.frombuffer(request.weights or b"", dtype=np.uint8)
    return core.read_model(model=request.model, weights=ov.Tensor(weights))


def one_at_a_time(model: Any) -> None:
    """Give the model's free batch axis the length 1, in place."""
    shapes = {}
    for port in model.inputs:
        shapes[port] = port.partial_shape
        shapes[port][0] = 1
    model.reshape(shapes)


def compile_ir(
    request: LoadRequest,
    cache: Path | None,
    device: str = "CPU",
    *,
    any_batch: bool = False,
    profiled: bool = False,
) -> Any:
    """An `ov.CompiledModel` that executes what was declared; taken from `cache`, or put there, if there is one.

    Args:
        request: An IR.
        cache: A folder.
        device: OpenVINO's name of it.
        any_batch: For any number of pictures; else for one at a time, which takes 3 to 35 % less time for it.
        profiled: Time every layer, which slows the whole.

    Raises:
        BackendError: it is no IR, OpenVINO cannot compile it, or would execute it in another precision.
    """
    executable = executable_precisions(device)
    _require_executable(executable, request.precision, request.name, device)
    settings = compile_settings(request.precision, request.settings, device, executable)
    if cache is not None:
        settings["CACHE_DIR"] = str(cache)
    if profiled:
        settings["PERF_COUNT"] = "YES"
    try:
        core = _core()
        model = _read_ir(core, request)
        if not any_batch:
            one_at_a_time(model)
        compiled = core.compile_model(model, device, settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot load '{request.name}': {_reason(error)}") from error
    _require_precision(compiled, request.precision, executable, request.name)
    return compiled


class _Requests:
    """The infer requests of a compiled model. Threads that need one at the same time have one each, and give it back."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: deque[Any] = deque()

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None) -> Sequence[npt.NDArray[Any]]:
        """Outputs in order.

        Raises:
            RuntimeError: OpenVINO's.
        """
        try:
            # Both ends of a deque are safe to use from several threads.
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        begun = perf_counter_ns()
        # Inputs are read where they are, if they lie in one piece and may be written to, which OpenVINO insists on; outputs
        # are copied, because the request's own memory is used again.
        shared = {name: np.require(array, requirements=("C", "W")) for name, array in feeds.items()}
        for name, array in shared.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        ready = perf_counter_ns()
        request.infer()
        done = perf_counter_ns()
        arrays = [request.get_output_tensor(index).data.copy() for index in range(len(self.compiled.outputs))]
        self._idle.append(request)
        if clock is not None:
            clock.copy_in_ns += ready - begun
            clock.copy_out_ns += perf_counter_ns() - done
        return arrays


class OpenVinoBackend:
    """A model compiled with the latency hint for one picture, and, once there are several at a time, again for any number.

    OpenVINO lets as many threads run at the same time as it has streams.
    """

    def __init__(self, request: LoadRequest) -> None:
        self._name = request.name
        self._request, self._device = request, choose_device(request)
        device = self._device
        # Without the folder `edgewright compile` was never called here, and naming what it would hold costs time.
        has_cache = device_cache("openvino", request.settings.cache).is_dir()
        cache = checked_cache(kept_in(request, device)) if has_cache else None
        compiled = compile_ir(request, cache, device)
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)
        self.execution = _execution(compiled, device)
        self._single: _Requests | None = _Requests(compiled)
        self._many: _Requests | None = None
        self._compiling = threading.Lock()
        self._lifetime = Lifetime(request.name)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        with self._lifetime:
            check_feeds(feeds, self.inputs, self._name)
            # An NPU takes no shapes that are not fixed.
            batch = 1 if self._device.startswith("NPU") else None
            return run_in_parts(lambda part: self._infer(part, clock), feeds, batch)

    def _infer(self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None) -> Sequence[npt.NDArray[Any]]:
        is_single = all(array.ndim and len(array) == 1 for array in feeds.values())
        requests = self._single if is_single else self._for_many()
        assert requests is not None
        try:
            return requests.infer(feeds, clock)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on '{self._name}': {_reason(error)}") from error

    def _for_many(self) -> _Requests:
        with self._compiling:
            if self._many is None:
                self._many = _Requests(compile_ir(self._request, None, self._device, any_batch=True))
            return self._many

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        self._lifetime.end()
        self._single = self._many = None


def _execution(compiled: Any, device: str) -> Execution:
    """What the compiled model says of itself; only the CPU has threads and streams to tell."""
    name = str(parse_device(device))
    full_name = _core().get_property(device, "FULL_DEVICE_NAME")
    if device != "CPU":
        return Execution(name, full_name, None, None)
    threads, streams = (int(compiled.get_property(key)) for key in ("INFERENCE_NUM_THREADS", "NUM_STREAMS"))
    return Execution(name, full_name, max(1, threads // max(1, streams)), streams)


def _require_executable(executable: Sequence[str], precision: str, name: str, device: str) -> None:
    """Refuse what the device has no instructions for.

    Raises:
        PrecisionError: the declared precision would be emulated, or replaced by another.
    """
    if precision not in executable:
        raise PrecisionError(
            f"OpenVINO would emulate {precision} for '{name}': {device} has no instructions for it, but for "
            f"{', '.join(executable)}. Choose another artefact."
        )


def _require_precision(compiled: Any, precision: str, executable: Sequence[str], name: str) -> None:
    """Refuse a compiled model that does not execute what was declared.

    The hint is only what OpenVINO was told: it says nothing of layers that went another way. What counts is what the
    compiled graph says of its convolutions and matrix products. An NPU shows no layers; there the hint has to do.

    Raises:
        PrecisionError: the declared precision is not that of the heavy layers (of most of them for bf16 and fp16, where
            OpenVINO keeps some in f32; of any for int8, where some were left in float on purpose).
    """
    hint = precision_hint(precision, executable)
    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    advice = "Its accuracy and latency would not be those reported; choose another artefact."
    if told != hint:
        raise PrecisionError(f"OpenVINO runs '{name}' in {told} here, not in {hint} as declared. {advice}")
    layers = compiled.get_runtime_model().get_ops()
    heavy = [executed_in(layer) for layer in layers if layer.get_rt_info()["layerType"].astype(str) in _HEAVY]
    executed = Counter(heavy)
    others = set(executed) - {precision, _EXECUTED[precision_hint("int8", executable)]}
    enough = executed[precision] > (0 if precision == "int8" else len(heavy) / 2)
    if heavy and (others or not enough):
        found = ", ".join(f"{count} in {kind}" for kind, count in executed.most_common())
        raise PrecisionError(
            f"OpenVINO runs the {len(heavy)} convolutions and matrix products of '{name}' otherwise than in {precision}, "
            f"as declared: {found}. {advice}"
        )


def executed_in(layer: Any) -> str:
    """Precision of a layer of `get_runtime_model()`: that of the tensor it works on.

    Its own `runtimePrecision` says f16 of a layer whose weights are merely stored so.
    """
    inputs = layer.inputs()
    own = layer.get_rt_info()["runtimePrecision"].astype(str)
    kind = str(inputs[0].get_element_type().get_type_name() if inputs else own)
    return _EXECUTED.get(kind, kind)


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, without the lines that only name places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = " ".join(line for line in lines if not line.startswith(("Exception from src", "Check '"))).strip()
    return telling or str(error)


def _spec(port: Any) -> TensorSpec:
    """Of a model that was compiled for one picture; its first axis may have any length all the same."""
    shape = (None, *(int(axis.get_length()) if axis.is_static else None for axis in list(port.partial_shape)[1:]))
    dtype = {"u8": "uint8", "f32": "float32"}.get(port.element_type.get_type_name(), port.element_type.get_type_name())
    return TensorSpec(port.any_name, dtype, shape)
