"""An exponential moving average of the weights, which is evaluated and kept in place of the last step's.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992). The first steps weigh less memory,
so that the average does not begin with the untrained weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """The average of `parameters`, with `decay` of it remembered at every update; a decay of 0 averages nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters) if decay else []
        self._decay = decay
        self._updates = 0
        self._values = [parameter.detach().clone() for parameter in self._parameters]

    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        if self._parameters:
            self._updates += 1
            decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
            torch._foreach_lerp_(self._values, [parameter.detach() for parameter in self._parameters], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters are the average."""
        for parameter, value in zip(self._parameters, self._values, strict=True):
            parameter.data, value.data = value.data, parameter.data
        try:
            yield
        finally:
            for parameter, value in zip(self._parameters, self._values, strict=True):
                parameter.data, value.data = value.data, parameter.data

    def state_dict(self) -> dict[str, object]:
        """What :meth:`load_state_dict` needs to go on."""
        return {"updates": self._updates, "values": self._values}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a state."""
        updates, values = state["updates"], state["values"]
        assert isinstance(updates, int)
        assert isinstance(values, list)
        self._updates = updates
        for value, stored in zip(self._values, values, strict=True):
            value.copy_(stored)
