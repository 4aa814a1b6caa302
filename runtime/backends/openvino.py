"""OpenVINO on the CPU, in the precision it was told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgewright.runtime.backends.base import LoadRequest, TensorSpec, check_feeds
from edgewright.runtime.errors import BackendError
from edgewright.runtime.parallel import available_cores

__all__ = ["OpenVinoBackend", "executable_precisions", "executed_in"]

# What the float parts are executed in. INT8 graphs are told f32 as well: their quantized part is in the graph, and
# the rest must not slip into bf16 where the CPU has it.
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}

_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}

# The layers that nearly all of the work is in, and the names of what they may be executed in.
_HEAVY = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_EXECUTED = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}


def executable_precisions() -> tuple[str, ...]:
    """What OpenVINO executes in hardware on this machine's CPU, of fp32, bf16, fp16 and int8.

    It takes more hints than these: with AVX-512 but without its bf16 instructions it emulates bf16, slowly.
    """
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(precision for capability, precision in _CAPABILITIES.items() if capability in capabilities)


class OpenVinoBackend:
    """A compiled model with the latency hint; each thread that calls `run` has an infer request of its own."""

    def __init__(self, request: LoadRequest) -> None:
        self._name = request.name
        hint = _HINTS[request.precision]
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": request.threads or available_cores(),
        }
        if not request.model.startswith((b"<?xml", b"<net ")):
            # OpenVINO reads other formats as well, ONNX with tensors in any file of the machine among them. None of
            # them begins so; leading blanks are not skipped, as they could.
            raise BackendError(f"'{request.name}' is no OpenVINO IR. Its .xml file is expected to begin with '<?xml'.")
        try:
            weights = np.frombuffer(request.weights or b"", dtype=np.uint8)
            model = core.read_model(model=request.model, weights=ov.Tensor(weights))
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load '{request.name}': {_reason(error)}") from error
        _require_precision(self._compiled, request.precision, request.name)
        self._inputs = tuple(_spec(port) for port in self._compiled.inputs)
        self._outputs = tuple(_spec(port) for port in self._compiled.outputs)
        self._local = threading.local()

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._outputs

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        compiled = self._compiled
        if compiled is None:
            raise BackendError(f"'{self._name}' is closed. Load it again.")
        check_feeds(feeds, self._inputs, self._name)
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = compiled.create_infer_request()
        try:
            # Inputs are read where they are; outputs are copied, because the request's own memory is used again.
            results = request.infer(feeds, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on '{self._name}': {_reason(error)}") from error
        return list(results.values())

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        self._compiled = None
        self._local = threading.local()


def _require_precision(compiled: Any, precision: str, name: str) -> None:
    """Refuse a compiled model that does not execute what was declared.

    The hint is only what OpenVINO was told: it says nothing of emulation, nor of layers that went another way. What
    counts is what the compiled graph says of its convolutions and matrix products, and what the CPU can do.

    Raises:
        BackendError: the declared precision is emulated, or is not that of the heavy layers (of most of them for bf16
            and fp16, where OpenVINO keeps some in f32; of any for int8, where some were left in float on purpose).
    """
    hint = _HINTS[precision]
    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    advice = "Its accuracy and latency would not be those reported; choose another artefact."
    if told != hint:
        raise BackendError(f"OpenVINO runs '{name}' in {told} here, not in {hint} as declared. {advice}")
    if precision not in executable_precisions():
        raise BackendError(
            f"OpenVINO would emulate {precision} for '{name}': this CPU has no instructions for it. Choose another artefact."
        )
    layers = compiled.get_runtime_model().get_ops()
    heavy = [executed_in(layer) for layer in layers if layer.get_rt_info()["layerType"].astype(str) in _HEAVY]
    executed = Counter(heavy)
    others = set(executed) - {precision, "fp32"}
    enough = executed[precision] > (0 if precision == "int8" else len(heavy) / 2)
    if heavy and (others or not enough):
        found = ", ".join(f"{count} in {kind}" for kind, count in executed.most_common())
        raise BackendError(
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
    shape = tuple(int(axis.get_length()) if axis.is_static else None for axis in port.partial_shape)
    dtype = {"u8": "uint8", "f32": "float32"}.get(port.element_type.get_type_name(), port.element_type.get_type_name())
    return TensorSpec(port.any_name, dtype, shape)
