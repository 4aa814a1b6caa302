"""TensorRT on the device's GPU: the engine compiled for it, built on first use where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgewright.runtime.backends.base import LoadRequest, TensorSpec
from edgewright.runtime.console import warn
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.engines import prepare_engine
from edgewright.runtime.tensorrt.layers import EngineLayers
from edgewright.runtime.tensorrt.library import load_tensorrt
from edgewright.runtime.tensorrt.options import BuildOptions, as_precision

__all__ = ["TensorRtBackend"]


class TensorRtBackend:
    """An engine from the device's cache.

    The batch sizes and flags are those that `edgewright compile` was given for this model and precision; without it, the
    defaults of :class:`~edgewright.runtime.tensorrt.options.BuildOptions`. `threads` means nothing on a GPU.
    """

    def __init__(self, request: LoadRequest) -> None:
        options = BuildOptions(as_precision(request.precision))
        trt, cuda = load_tensorrt(), load_cuda()
        prepared = prepare_engine(trt, cuda, request.model, options, name=request.name, as_built=True)
        self._runner = prepared.runner
        _warn_of_precision(self._runner.layers(), request.precision, request.name)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._runner.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._runner.outputs

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._runner.run(feeds)

    def layers(self) -> EngineLayers:
        """What the engine consists of, and in which precision."""
        return self._runner.layers()

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], repeats: int = 20) -> dict[str, float]:
        """Median milliseconds of each layer, see :meth:`~edgewright.runtime.tensorrt.runner.EngineRunner.layer_times`."""
        return self._runner.layer_times(feeds, repeats)

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        self._runner.close()


def _warn_of_precision(layers: EngineLayers, precision: str, name: str) -> None:
    """Say so if no layer gives what was asked for: TensorRT is free to choose a wider type where that is faster."""
    counts = layers.precisions()
    if precision not in counts and set(counts) - {""}:
        found = ", ".join(f"{count} {kind or 'untold'}" for kind, count in counts.items())
        warn(f"TensorRT executes no layer of '{name}' in {precision} here, but {found}")
