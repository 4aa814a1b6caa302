"""What an inference engine has to offer, and nothing more: it knows tensors, not pictures or labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends.devices import CPU, Device, parse_device
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.remote.settings import RemoteSettings

__all__ = [
    "DEFAULT_SETTINGS",
    "Backend",
    "EngineClock",
    "EngineSettings",
    "Execution",
    "LoadRequest",
    "TensorSpec",
    "check_feeds",
    "run_in_parts",
]


MOST_THREADS = 1024
"""More than the machines this runs on have; an engine starts as many as it is told, until the machine stands still."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a tensor; None stands for an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class EngineSettings:
    """Where and how an engine runs. The defaults answer one request after the other, as fast as this machine's CPU can.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, …, see :mod:`~edgewright.runtime.backends.devices`. None: the CPU; with the
            backend `tensorrt` its GPU.
        threads: Threads of one inference on the CPU; None: see :func:`~edgewright.runtime.parallel.threads_per_stream`.
        streams: Inferences that run at once; more wait for their turn. None: one with OpenVINO; with ONNX Runtime as many as
            there are callers, all on the same threads.
        cache: Where this device keeps what it compiles. None: see :func:`~edgewright.runtime.device_cache.device_cache`.
        remote: The server that runs the model, for the backend `remote` and for no other.
    """

    device: str | None = None
    threads: int | None = None
    streams: int | None = None
    cache: Path | None = None
    remote: RemoteSettings | None = None

    def __post_init__(self) -> None:
        for what, count in (("threads", self.threads), ("streams", self.streams)):
            if count is not None and not 1 <= count <= MOST_THREADS:
                raise UsageError(f"{count} {what} for an engine. Expected 1 to {MOST_THREADS}.")
        if (self.threads or 1) * (self.streams or 1) > MOST_THREADS:
            raise UsageError(
                f"{self.streams} streams of {self.threads} threads each. Expected at most {MOST_THREADS} threads in all."
            )
        if self.device is not None:
            parse_device(self.device)
            if self.remote is not None:
                raise UsageError(f"The server decides on which device it runs; '{self.device}' cannot be asked for.")

    def device_or(self, default: Device = CPU) -> Device:
        """The device, parsed."""
        return default if self.device is None else parse_device(self.device)


DEFAULT_SETTINGS = EngineSettings()


@dataclass(frozen=True)
class Execution:
    """What a loaded model really runs on.

    Attributes:
        device: As in :class:`EngineSettings`, never `auto`; `remote` where a server decides.
        provider: The part of the engine that has it: an execution provider of ONNX Runtime, a device's full name with
            OpenVINO and TensorRT, a server's platform and address.
        threads: Of one inference; None where that means nothing or is not told.
        streams: Inferences at once; None where nothing but the caller limits them.
    """

    device: str
    provider: str
    threads: int | None
    streams: int | None


@dataclass
class EngineClock:
    """Nanoseconds that :meth:`Backend.run` spent on moving tensors to the engine and its results back, summed up by it.

    An engine that reads and writes where its caller does, or does not tell, leaves them at 0.
    """

    copy_in_ns: int = 0
    copy_out_ns: int = 0


@dataclass(frozen=True)
class LoadRequest:
    """What a backend is asked to load.

    Attributes:
        model: The model file's verified bytes; none for a server, which has its own.
        weights: The weights file's, for formats that keep them apart.
        precision: What must be executed: fp32, fp16, bf16 or int8.
        settings: Where and how.
        name: For messages.
    """

    model: bytes = field(repr=False)
    weights: bytes | None = field(repr=False)
    precision: str
    settings: EngineSettings
    name: str


def check_feeds(feeds: Mapping[str, npt.NDArray[Any]], inputs: Sequence[TensorSpec], name: str) -> None:
    """Refuse inputs that are missing, unknown or of another dtype: some engines cast, or use what they held before.

    Raises:
        BackendError: see above.
    """
    if len(feeds) != len(inputs) or any(
        spec.name not in feeds or feeds[spec.name].dtype.name != spec.dtype for spec in inputs
    ):
        found = ", ".join(f"{key} ({value.dtype.name})" for key, value in feeds.items()) or "nothing"
        expected = ", ".join(f"{spec.name} ({spec.dtype})" for spec in inputs)
        raise BackendError(f"'{name}' was given {found}. Expected {expected}.")


def run_in_parts(
    run: Callable[[Mapping[str, npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]],
    feeds: Mapping[str, npt.NDArray[Any]],
    batch: int | None,
) -> Sequence[npt.NDArray[Any]]:
    """`run` on parts of `batch` along axis 0, outputs joined again; None takes all at once.

    For engines and servers that were compiled for one batch size. `batch` divides every number of samples only if it is
    1, which is what they are compiled for here.
    """
    if batch is None:
        return run(feeds)
    count = max((len(array) for array in feeds.values() if array.ndim), default=0)
    parts = [
        run({name: array[start : start + batch] for name, array in feeds.items()}) for start in range(0, count, batch)
    ]
    return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


class Backend(Protocol):
    """A loaded model. Constructed with a :class:`LoadRequest`; `run` may be called from several threads at once."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Input tensors, in the model's order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Output tensors, in the model's order."""

    @property
    def execution(self) -> Execution:
        """What it really runs on, as the engine says after loading."""

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """Outputs, in order, for inputs by name. The arrays belong to the caller. Copies are timed with `clock`.

        Raises:
            BackendError: the engine failed or refused the inputs, or it is closed.
        """

    def close(self) -> None:
        """Refuse new runs, wait for those in flight, and give the engine's memory back. Calling it again does nothing."""
