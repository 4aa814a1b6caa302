"""What an inference engine has to offer, and nothing more: it knows tensors, not pictures or labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Backend", "LoadRequest", "TensorSpec"]


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
