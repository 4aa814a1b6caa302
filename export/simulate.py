"""ONNX Runtime as export uses it: quickly, for float graphs; and literally, for Q/DQ graphs whose machine is not this one.

For a Q/DQ pair ONNX Runtime puts integer kernels of this CPU. Those may saturate where the target's do not: int8 weights
of full range do on x86 without VNNI. Literally, Q and DQ are executed as the specification says, and everything between
them in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.runtime.backends import EngineClock, Execution, TensorSpec
from edgewright.runtime.backends.onnxruntime import tensor_spec
from edgewright.runtime.errors import BackendError
from edgewright.runtime.parallel import available_cores

__all__ = ["SimulatedBackend", "open_session", "simulate"]

_BATCH = 16


def open_session(model: bytes, *, literal: bool = False) -> ort.InferenceSession:
    """Load a model from memory on the CPU, on all cores; `literal` as the module says."""
    options = ort.SessionOptions()
    if literal:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def simulate(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits float32 (N, classes) that `model` literally means for pixels (N, height, width, 3)."""
    session = open_session(model.SerializeToString(), literal=True)
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    return np.concatenate([session.run(None, {INPUT_NAME: part})[0] for part in parts])


class SimulatedBackend:
    """A :class:`~edgewright.runtime.backends.base.Backend` that executes Q/DQ graphs literally."""

    def __init__(self, model: bytes, name: str) -> None:
        try:
            self._session = open_session(model, literal=True)
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load '{name}': {error}") from error

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return tuple(tensor_spec(value) for value in self._session.get_inputs())

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return tuple(tensor_spec(value) for value in self._session.get_outputs())

    @property
    def execution(self) -> Execution:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return Execution("cpu", "CPUExecutionProvider, literally", available_cores(), None)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._session.run(None, feeds)  # type: ignore[no-any-return]

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
