"""ONNX Runtime: on the CPU, or on NVIDIA's GPUs where its providers for them are installed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgewright.runtime.backends.base import EngineClock, Execution, LoadRequest, TensorSpec, check_feeds
from edgewright.runtime.backends.devices import Device, no_such_device
from edgewright.runtime.backends.lifetime import Lifetime
from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.parallel import Turns, threads_per_stream

__all__ = [
    "OnnxRuntimeBackend",
    "devices",
    "placement",
    "require_provider",
    "session_options",
    "session_providers",
    "tensor_spec",
    "why_not_on",
]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"


def devices() -> tuple[str, ...]:
    """What the installed ONNX Runtime was built for. Whether the libraries of a GPU load shows only with a model."""
    available = ort.get_available_providers()
    return tuple(kind for kind, provider in _PROVIDERS.items() if provider in available)


def why_not_on(device: Device, precision: str) -> str:
    """Why this precision is not executed on this device here; empty if it may be: the rest shows with a model."""
    here = devices()
    if not Device(device.kind).is_among(here):
        return no_such_device(str(device), "onnxruntime", here)
    if (device.kind, precision) == ("cuda", "int8"):
        # https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantization-on-gpu
        return "ONNX Runtime computes INT8 in float with CUDA; INT8 needs the device tensorrt, or a float artefact"
    return ""


class OnnxRuntimeBackend:
    """A session of one execution provider.

    On the CPU a graph is executed in the precision that it is written in, except that FP16 is cast to FP32 and back where
    there are no kernels for it; export asks the optimised graph what became of it. With CUDA TF32, which NVIDIA's libraries
    put in the place of FP32 unasked, is turned off; TensorRT's provider has no switch for it, and a warning says so. A
    provider that does not load is an error: ONNX Runtime itself goes on
    with the CPU and says nothing. Parts that the provider leaves to the CPU are told as a warning.
    """

    def __init__(self, request: LoadRequest) -> None:
        device = request.settings.device_or()
        if reason := why_not_on(device, request.precision):
            raise UsageError(f"'{request.name}': {reason}")
        streams = request.settings.streams
        threads = threads_per_stream(request.settings.threads, streams)
        self._session: ort.InferenceSession | None = _open_session(request, device, threads)
        self._name = request.name
        self.inputs = tuple(tensor_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(tensor_spec(value) for value in self._session.get_outputs())
        self._output_names = [output.name for output in self.outputs]
        # Without a limit every caller computes as well, beside the session's own threads.
        self._turns = nullcontext() if streams is None else Turns(streams)
        self.execution = Execution(str(device), _PROVIDERS[device.kind], threads, streams)
        self._lifetime = Lifetime(request.name)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        with self._lifetime:
            assert self._session is not None
            check_feeds(feeds, self.inputs, self._name)
            with self._turns:
                begun = perf_counter_ns()
                try:
                    # As `session.run` does it, in three steps. Arrays that lie in one piece are not copied on their way in.
                    values = {
                        name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feeds[name])) for name in feeds
                    }
                    ready = perf_counter_ns()
                    results = self._session.run_with_ort_values(self._output_names, values)
                    done = perf_counter_ns()
                    arrays = [result.numpy() for result in results]
                except Exception as error:  # its exceptions share no base class
                    raise BackendError(f"ONNX Runtime failed on '{self._name}': {error}") from error
                if clock is not None:
                    clock.copy_in_ns += ready - begun
                    clock.copy_out_ns += perf_counter_ns() - done
                return arrays

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        self._lifetime.end()
        self._session = None


def session_options(device: Device, threads: int) -> ort.SessionOptions:
    """How a session is to run on `device`."""
    options = ort.SessionOptions()
    # Containers and affinity masks count here; ONNX Runtime's own default counts the machine's cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for more work by spinning are quick within an inference; after it they would only take a core from
    # whoever decodes and resizes the next picture.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Warnings about the graph are for whoever exports it; errors come as exceptions.
    options.log_severity_level = 4
    if device.kind != "cpu":
        options.add_session_config_entry(_RECORD_PLACEMENT, "1")
    return options


def session_providers(device: Device, precision: str) -> list[Any]:
    """The execution provider for `device`, and the CPU's for what that leaves."""
    cpu = _PROVIDERS["cpu"]
    return [cpu] if device.kind == "cpu" else [(_PROVIDERS[device.kind], _provider_options(device, precision)), cpu]


def _open_session(request: LoadRequest, device: Device, threads: int) -> ort.InferenceSession:
    options, providers = session_options(device, threads), session_providers(device, request.precision)
    try:
        # Its fallback would print on stdout and load for the CPU.
        session = ort.InferenceSession(request.model, sess_options=options, providers=providers, enable_fallback=0)
    except Exception as error:  # its exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load '{request.name}': {error}") from error
    if device.kind != "cpu":
        require_provider(session, _PROVIDERS[device.kind], request.name)
        _warn_of_placement(session, _PROVIDERS[device.kind], request.name)
    return session


def _provider_options(device: Device, precision: str) -> dict[str, str]:
    options = {"device_id": str(device.index or 0)}
    if device.kind == "cuda":
        return {**options, "use_tf32": "0"}
    if precision == "fp32" and os.environ.get(_TF32_VARIABLE) != "0":
        warn(f"TensorRT may compute FP32 in TF32, with a mantissa of 10 bits; set {_TF32_VARIABLE}=0 to forbid it")
    # Files in its engine cache would be executed unchecked, so it has none; `edgewright compile --backend tensorrt` keeps
    # engines with their checksums.
    return {
        **options,
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
        "trt_engine_cache_enable": "0",
    }


def require_provider(session: ort.InferenceSession, provider: str, name: str) -> None:
    """Refuse a session that does not have the provider it was made for.

    Raises:
        BackendError: see above.
    """
    found = session.get_providers()
    if found[:1] != [provider]:
        raise BackendError(
            f"ONNX Runtime did not load its {provider} for '{name}' and would run on {', '.join(found)}. Its libraries (CUDA, "
            "cuDNN, TensorRT) or the driver are missing, or of other versions than this onnxruntime-gpu was built for."
        )


def placement(session: ort.InferenceSession) -> Counter[str] | None:
    """How many operators each provider has; None where this version of ONNX Runtime (before 1.24) does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return counts


def _warn_of_placement(session: ort.InferenceSession, provider: str, name: str) -> None:
    counts = placement(session)
    if counts is None:
        warn(f"ONNX Runtime {ort.__version__} does not tell how much of '{name}' its {provider} really executes")
    elif others := {other: count for other, count in counts.items() if other != provider}:
        left = ", ".join(f"{count} to {other}" for other, count in others.items())
        warn(f"{provider} executes {counts[provider]} operators of '{name}' and leaves {left}; latency suffers from it")


def tensor_spec(value: Any) -> TensorSpec:
    """What a session says of an input or output."""
    shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
