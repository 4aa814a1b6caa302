"""A Q/DQ graph computed as it is written, for artefacts whose machine is not this one.

ONNX Runtime would replace its Q/DQ pairs with integer kernels of this CPU. Those may saturate where the target's do not:
int8 weights of full range do on x86 without VNNI. With that replacement off, Q and DQ are executed as the specification
says, and everything between them in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from edgewright.runtime.backends import TensorSpec
from edgewright.runtime.backends.onnxruntime import tensor_spec
from edgewright.runtime.errors import BackendError
from edgewright.runtime.parallel import available_cores

__all__ = ["SimulatedBackend"]


class SimulatedBackend:
    """A :class:`~edgewright.runtime.backends.base.Backend` by ONNX Runtime without integer kernels."""

    def __init__(self, model: bytes, name: str) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.intra_op_num_threads = available_cores()
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
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

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._session.run(None, feeds)  # type: ignore[no-any-return]

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
