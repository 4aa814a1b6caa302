"""Running an engine: its own stream, page-locked buffers, one inference at a time.

All memory is taken once, for the largest batch of the engine's profile, so that a run allocates nothing on the GPU and
an engine that fits when it is loaded fits for good. A larger batch is run in parts, a smaller one than the profile's
least is filled up.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends.base import EngineClock, TensorSpec, check_feeds
from edgewright.runtime.errors import BackendError
from edgewright.runtime.tensorrt.cuda import Cuda, PinnedBuffer
from edgewright.runtime.tensorrt.layers import EngineLayers, inspect_layers, make_profiler
from edgewright.runtime.tensorrt.library import make_logger

__all__ = ["EngineRefusedError", "EngineRunner"]

_DTYPES = {
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "BOOL": "bool",
}


class EngineRefusedError(BackendError):
    """TensorRT does not take a serialized engine: it is damaged, or for another version or GPU. It can be built again."""


@dataclass(frozen=True)
class _Buffer:
    """Memory of one tensor on both sides, large enough for the largest batch."""

    spec: TensorSpec
    device: int
    host: PinnedBuffer

    def bytes_for(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape, dtype=np.int64)) * np.dtype(self.spec.dtype).itemsize

    def array(self, shape: Sequence[int]) -> npt.NDArray[Any]:
        """The host side as an array of this shape: a view, valid until the next run."""
        return self.host.view[: self.bytes_for(shape)].view(self.spec.dtype).reshape(tuple(shape))


class EngineRunner:
    """A deserialized engine with all it needs to run. Calls from several threads wait for each other."""

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes, *, name: str, dla: int | None, host_code: bool) -> None:
        """Load an engine.

        Args:
            trt: The module `tensorrt`.
            cuda: CUDA's runtime.
            plan: The serialized engine; it is executed, so its origin must have been checked.
            name: For messages.
            dla: Core of the deep learning accelerator that it was built for.
            host_code: Allow the runtime that a version-compatible engine carries with it.

        Raises:
            EngineRefusedError: TensorRT does not take it.
            BackendError: no GPU, or its memory does not suffice.
        """
        self._trt, self._cuda, self._name = trt, cuda, name
        self._lock = threading.Lock()
        self._closing = contextlib.ExitStack()
        self._device = cuda.device().index
        self._logger = make_logger(trt)
        with contextlib.ExitStack() as undo:
            self._engine = self._deserialize(plan, dla, host_code)
            self._context = self._new_context()
            self._stream = cuda.create_stream()
            undo.callback(cuda.destroy_stream, self._stream)
            self._batches = self._batch_range()
            self._inputs, self._outputs = self._allocate(undo)
            # All went well: what would have been undone now is undone by close().
            self._closing = undo.pop_all()
        self._open = True

    def _deserialize(self, plan: bytes, dla: int | None, host_code: bool) -> Any:
        try:
            self._runtime = self._trt.Runtime(self._logger)
        except TypeError as error:  # pybind11's way of saying that the library returned no runtime
            raise BackendError(f"TensorRT {self._trt.__version__} cannot start here: {error}.") from error
        if host_code:
            self._runtime.engine_host_code_allowed = True
        if dla is not None:
            self._runtime.DLA_core = dla
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineRefusedError(
                f"TensorRT {self._trt.__version__} does not take the engine of '{self._name}': {self._reason()} "
                "Build it again: edgewright compile BUNDLE --backend tensorrt --force."
            )
        return engine

    def _reason(self) -> str:
        return " ".join(list(self._logger.errors)[-3:]) or "it gave no reason."

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"TensorRT cannot prepare '{self._name}' for execution: {self._reason()} "
                "Often the GPU's memory is full: choose a smaller largest batch, or end what else runs on it."
            )
        return context

    def _names(self, mode: Any) -> list[str]:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        return [name for name in names if self._engine.get_tensor_mode(name) == mode]

    def _batch_range(self) -> tuple[int, int]:
        """Smallest and largest batch that the engine's profile allows."""
        ranges = set()
        for name in self._names(self._trt.TensorIOMode.INPUT):
            smallest, _, largest = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
            ranges.add((smallest[0], largest[0]))
        if len(ranges) != 1:
            raise BackendError(f"The engine of '{self._name}' has inputs with the batch sizes {sorted(ranges)}.")
        return ranges.pop()

    def _allocate(self, undo: contextlib.ExitStack) -> tuple[list[_Buffer], list[_Buffer]]:
        """Buffers for the largest batch: inputs, outputs."""
        largest = self._batches[1]
        inputs = self._names(self._trt.TensorIOMode.INPUT)
        for name in inputs:
            self._set_shape(self._context, name, (largest, *self._spec(name).shape[1:]))
        self._infer_shapes(self._context)
        buffers = {}
        for name in [*inputs, *self._names(self._trt.TensorIOMode.OUTPUT)]:
            spec = self._spec(name)
            shape = tuple(self._context.get_tensor_shape(name))
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            device = self._cuda.allocate(size)
            undo.callback(self._cuda.free, device)
            host = self._cuda.allocate_pinned(size)
            undo.callback(self._cuda.free_pinned, host)
            buffers[name] = _Buffer(spec, device, host)
        return [buffers[name] for name in inputs], [buffers[name] for name in buffers if name not in inputs]

    def _spec(self, name: str) -> TensorSpec:
        dtype = self._engine.get_tensor_dtype(name).name
        if dtype not in _DTYPES:
            raise BackendError(
                f"'{name}' of '{self._name}' has the type {dtype}. Expected one of {', '.join(_DTYPES)}."
            )
        shape = tuple(None if axis == -1 else int(axis) for axis in self._engine.get_tensor_shape(name))
        return TensorSpec(name, _DTYPES[dtype], shape)

    def _set_shape(self, context: Any, name: str, shape: Sequence[int | None]) -> None:
        if not context.set_input_shape(name, self._trt.Dims(tuple(shape))):
            raise BackendError(f"TensorRT refused the shape {tuple(shape)} for '{name}' of '{self._name}'.")

    def _infer_shapes(self, context: Any) -> None:
        if missing := context.infer_shapes():
            raise BackendError(f"TensorRT lacks the shapes of {', '.join(missing)} of '{self._name}'.")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Input tensors; a free axis is None."""
        return tuple(buffer.spec for buffer in self._inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Output tensors; a free axis is None."""
        return tuple(buffer.spec for buffer in self._outputs)

    @property
    def batches(self) -> tuple[int, int]:
        """Smallest and largest batch of one execution; other sizes are run in parts or filled up."""
        return self._batches

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None) -> list[npt.NDArray[Any]]:
        """Outputs, in order, for inputs by name, axis 0 of each being the batch.

        With a clock the three parts wait for each other, which costs two more synchronizations.

        Raises:
            BackendError: wrong inputs, or TensorRT or CUDA failed.
        """
        count = self._check(feeds)
        parts = []
        with self._lock:
            self._require_open()
            self._cuda.use(self._device)
            for start in range(0, count, self._batches[1]):
                chunk = {name: array[start : start + self._batches[1]] for name, array in feeds.items()}
                parts.append(self._execute(self._context, chunk, clock))
        return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _check(self, feeds: Mapping[str, npt.NDArray[Any]]) -> int:
        """The number of samples.

        Raises:
            BackendError: other tensors, types or shapes than the engine's.
        """
        check_feeds(feeds, self.inputs, self._name)
        counts = {len(array) if array.ndim else 0 for array in feeds.values()}
        for spec in self.inputs:
            if feeds[spec.name].shape[1:] != spec.shape[1:] or counts != {len(feeds[spec.name])} or 0 in counts:
                raise BackendError(
                    f"'{spec.name}' of '{self._name}' was given the shape {feeds[spec.name].shape}. "
                    f"Expected (N, {', '.join(map(str, spec.shape[1:]))}), the same N of at least 1 for all inputs."
                )
        return counts.pop()

    def _require_open(self) -> None:
        if not self._open:
            raise BackendError(f"'{self._name}' is closed. Load it again.")

    def _execute(
        self, context: Any, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> list[npt.NDArray[Any]]:
        """One execution of at most the largest batch. The arrays returned are copies."""
        begun = perf_counter_ns()
        stream, cuda = self._stream, self._cuda
        count = len(next(iter(feeds.values())))
        batch = max(count, self._batches[0])
        shapes = {buffer.spec.name: (batch, *feeds[buffer.spec.name].shape[1:]) for buffer in self._inputs}
        for name, shape in shapes.items():
            self._set_shape(context, name, shape)
        self._infer_shapes(context)
        for buffer in (*self._inputs, *self._outputs):
            name = buffer.spec.name
            shapes[name] = tuple(context.get_tensor_shape(name))
            if not context.set_tensor_address(name, buffer.device):
                raise BackendError(f"TensorRT refused the memory for '{name}' of '{self._name}'.")
        # From here on the stream uses the buffers, so nothing is returned or raised before it is done.
        try:
            for buffer in self._inputs:
                host = buffer.array(shapes[buffer.spec.name])
                host[:count] = feeds[buffer.spec.name]
                host[count:] = 0
                cuda.copy_to_device(buffer.device, buffer.host, host.nbytes, stream)
            if clock is not None:
                cuda.synchronize(stream)
                clock.copy_in_ns += perf_counter_ns() - begun
            done = context.execute_async_v3(int(stream))
            if clock is not None:
                cuda.synchronize(stream)
            computed = perf_counter_ns()
            for buffer in self._outputs:
                cuda.copy_to_host(buffer.host, buffer.device, buffer.bytes_for(shapes[buffer.spec.name]), stream)
        finally:
            cuda.synchronize(stream)
        if not done:
            raise BackendError(f"TensorRT failed on '{self._name}': {self._reason()}")
        arrays = [buffer.array(shapes[buffer.spec.name])[:count].copy() for buffer in self._outputs]
        if clock is not None:
            clock.copy_out_ns += perf_counter_ns() - computed
        return arrays

    def layers(self) -> EngineLayers:
        """What the engine consists of."""
        with self._lock:
            self._require_open()
            return inspect_layers(self._trt, self._engine)

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], repeats: int = 20) -> dict[str, float]:
        """Median milliseconds of each layer over `repeats` executions of one batch, by name, in order of execution.

        Layers are timed in a context of their own, because a profiler slows every execution it is attached to.

        Raises:
            BackendError: more samples than the largest batch, or TensorRT failed.
        """
        if self._check(feeds) > self._batches[1]:
            raise BackendError(f"Layers are timed on one batch, at most {self._batches[1]} samples of '{self._name}'.")
        with self._lock:
            self._require_open()
            self._cuda.use(self._device)
            context = self._new_context()
            profiler = make_profiler(self._trt)
            # Reported after the stream is done, not inside execute_async_v3, which would wait for it.
            context.enqueue_emits_profile = False
            self._execute(context, feeds)
            context.profiler = profiler
            for _ in range(repeats):
                self._execute(context, feeds)
                if not context.report_to_profiler():
                    raise BackendError(f"TensorRT gave no layer times for '{self._name}': {self._reason()}")
            return dict(profiler.medians())

    def close(self) -> None:
        """Give all memory back. Calling it again does nothing."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._cuda.use(self._device)
            # The context before the engine, the engine before the runtime.
            del self._context, self._engine, self._runtime
            self._closing.close()
