"""What an inference engine has to offer, and nothing more: it knows tensors, not pictures or labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edgewright.runtime.errors import BackendError, UsageError

__all__ = ["Backend", "LoadRequest", "TensorSpec", "check_feeds"]


MOST_THREADS = 1024
"""More than the machines this runs on have; an engine starts as many as it is told, until the machine stands still."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a tensor; None stands for an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class LoadRequest:
    """What a backend is asked to load.

    Attributes:
        model: The model file's verified bytes.
        weights: The weights file's, for formats that keep them apart.
        precision: What must be executed: fp32, fp16, bf16 or int8.
        threads: Threads for one inference; None leaves it to the backend's own sound default (all cores).
        name: For messages.
    """

    model: bytes
    weights: bytes | None
    precision: str
    threads: int | None
    name: str

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"{self.threads} threads for '{self.name}'. Expected 1 to {MOST_THREADS}.")


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


class Backend(Protocol):
    """A loaded model. Constructed with a :class:`LoadRequest`; `run` may be called from several threads at once."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Input tensors, in the model's order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Output tensors, in the model's order."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """Outputs, in order, for inputs by name. The arrays belong to the caller.

        Raises:
            BackendError: the engine failed or refused the inputs.
        """

    def close(self) -> None:
        """Give the engine's memory back. Calling it again does nothing; `run` afterwards is an error."""
