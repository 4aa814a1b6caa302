"""The frozen part of a network, compiled, and its outputs, computed once per picture and view.

Eager PyTorch would compute them again in every epoch; OpenVINO computes them several times faster, once.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import track
from edgewright.runtime.extras import require
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.telemetry import forbid_telemetry
from edgewright.train.data.loading import Renderer, batches

__all__ = ["ActivationCache", "compile_frozen"]

_BATCH = 16


class _Compiled:
    """uint8 pixels (N, height, width, 3) to the frozen part's output, as many requests in flight as OpenVINO likes."""

    def __init__(self, module: nn.Module, size: int) -> None:
        require("train", "openvino")
        forbid_telemetry()
        import openvino as ov

        example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        with warnings.catch_warnings():
            # OpenVINO's converter traces; torch warns that tracing will go, which is not for our users to mend.
            warnings.simplefilter("ignore")
            model = ov.convert_model(module.eval(), example_input=example)
        model.reshape([-1, size, size, 3])
        # f32 by name: the default would be bf16 on some CPUs, and a head must see what the device's FP32 shows it.
        self._compiled = ov.compile_model(
            model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        )
        self._queue_type = ov.AsyncInferQueue

    def fill(self, pixel_batches: Any, store: Any) -> None:
        """Run every batch and hand (indices, output) to `store`."""
        queue = self._queue_type(self._compiled)
        queue.set_callback(lambda request, indices: store(indices, request.get_output_tensor(0).data))
        for batch in pixel_batches:
            queue.start_async({0: batch.inputs.numpy()}, batch.indices.numpy())
        queue.wait_all()


def compile_frozen(module: nn.Module, size: int) -> _Compiled:
    """Compile `module` (uint8 images of `size` x `size` to activations) for this CPU in true FP32.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return _Compiled(module, size)


class ActivationCache:
    """Outputs of a frozen part for samples x views, memory-mapped in a temporary file that goes with the object.

    Attributes:
        values: axes [view, sample, ...activation], in `dtype`.
    """

    def __init__(
        self, shape: Sequence[int], samples: int, views: int, dtype: type[np.floating[Any]], folder: Path
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix="activations-")  # noqa: SIM115 - lives as long as we do
        self.values: npt.NDArray[Any] = np.memmap(self._file, dtype=dtype, mode="w+", shape=(views, samples, *shape))

    def fill(self, compiled: _Compiled, renderer: Renderer, views: Sequence[int], description: str) -> ActivationCache:
        """Compute the activations of every sample in each of `views` (renderer's numbering; row r holds views[r])."""
        count = len(renderer.samples)
        for row, view in enumerate(views):

            def store(indices: npt.NDArray[np.int64], output: npt.NDArray[np.float32], row: int = row) -> None:
                self.values[row, indices] = output

            source = batches(renderer, range(count), view=view, batch=_BATCH, threads=available_cores())
            label = description if len(views) == 1 else f"{description} (view {row + 1}/{len(views)})"
            compiled.fill(track(source, label, -(-count // _BATCH)), store)
        return self

    def close(self) -> None:
        """Delete the file."""
        del self.values
        self._file.close()
