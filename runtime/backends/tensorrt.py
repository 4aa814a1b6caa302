"""TensorRT on the device's GPU: the engine compiled for it, built on first use where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgewright.runtime.backends.base import EngineClock, Execution, LoadRequest
from edgewright.runtime.backends.devices import Device, no_such_device
from edgewright.runtime.console import warn
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.errors import UsageError
from edgewright.runtime.tensorrt.cache import EngineCache
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.engines import prepare_engine
from edgewright.runtime.tensorrt.layers import EngineLayers
from edgewright.runtime.tensorrt.library import load_tensorrt
from edgewright.runtime.tensorrt.options import BuildOptions, as_precision

__all__ = ["TensorRtBackend", "devices", "why_not_on"]


def devices() -> tuple[str, ...]:
    """NVIDIA's GPU. Whether there is one, and how many, shows when an engine is loaded."""
    return ("cuda",)


def why_not_on(device: Device, precision: str) -> str:
    """Why this is no device of TensorRT's; empty if it may be. Which precisions it builds shows with a model."""
    return "" if device.kind == "cuda" else no_such_device(str(device), "tensorrt", devices())


class TensorRtBackend:
    """An engine from the device's cache.

    The batch sizes and flags are those that `edgewright compile` was given for this model and precision; without it, the
    defaults of :class:`~edgewright.runtime.tensorrt.options.BuildOptions`. Threads and streams mean nothing here: an engine
    has one execution context, and runs wait for each other.
    """

    def __init__(self, request: LoadRequest) -> None:
        device = request.settings.device_or(Device("cuda"))
        if reason := why_not_on(device, request.precision):
            raise UsageError(reason)
        options = BuildOptions(as_precision(request.precision))
        trt, cuda = load_tensorrt(), load_cuda()
        if device.index is not None:
            cuda.use(device.index)
        cache = EngineCache(device_cache("tensorrt", request.settings.cache))
        prepared = prepare_engine(trt, cuda, request.model, options, name=request.name, cache=cache, as_built=True)
        self._runner = prepared.runner
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        gpu = cuda.device()
        self.execution = Execution(f"cuda:{gpu.index}", f"TensorRT {trt.__version__} on {gpu.name}", None, 1)
        _warn_of_precision(self._runner.layers(), request.precision, request.name)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`."""
        return self._runner.run(feeds, clock)

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
