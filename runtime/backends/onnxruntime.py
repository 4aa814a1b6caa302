"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from edgewright.runtime.backends.base import LoadRequest, TensorSpec, check_feeds
from edgewright.runtime.errors import BackendError
from edgewright.runtime.parallel import available_cores

__all__ = ["OnnxRuntimeBackend", "tensor_spec"]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeBackend:
    """A session of ONNX Runtime's CPU execution provider.

    The CPU provider executes a graph in the precision that the graph is written in, so there is nothing to set.
    """

    def __init__(self, request: LoadRequest) -> None:
        options = ort.SessionOptions()
        # Containers and affinity masks count here; ONNX Runtime's own default counts the machine's cores.
        options.intra_op_num_threads = request.threads or available_cores()
        options.inter_op_num_threads = 1
        # Warnings about the graph are for whoever exports it; errors come as exceptions.
        options.log_severity_level = 4
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                request.model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load '{request.name}': {error}") from error
        self._name = request.name
        self._inputs = tuple(tensor_spec(value) for value in self._session.get_inputs())
        self._outputs = tuple(tensor_spec(value) for value in self._session.get_outputs())
        self._output_names = [output.name for output in self._outputs]

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
        session = self._session
        if session is None:
            raise BackendError(f"'{self._name}' is closed. Load it again.")
        check_feeds(feeds, self._inputs, self._name)
        try:
            return session.run(self._output_names, feeds)  # type: ignore[no-any-return]
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime failed on '{self._name}': {error}") from error

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        self._session = None


def tensor_spec(value: Any) -> TensorSpec:
    """What a session says of an input or output."""
    shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
