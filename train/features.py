"""The frozen part of a network, compiled, and its outputs, computed once per picture and view.

Eager PyTorch would compute them again in every epoch; on a CPU OpenVINO computes them several times faster, once.
"""

from __future__ import annotations

import copy
import mmap
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import track
from edgewright.runtime.extras import require
from edgewright.train.data.loading import Batch, Renderer, batches

__all__ = ["ActivationCache", "Compiled", "compile_frozen"]

_BATCH = 16
_RELEASED = 16
"""Batches after which the pages they were written to are let go."""


Store = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], None]


class Compiled(Protocol):
    """uint8 pixels (N, height, width, 3) to the frozen part's output."""

    def fill(self, pixel_batches: Iterable[Batch], store: Store) -> None:
        """Run every batch and hand (indices, output) to `store`."""


def compile_frozen(module: nn.Module, size: int, device: torch.device) -> Compiled:
    """Make `module` (uint8 images of `size` x `size` to activations) fast, in true FP32, with OpenVINO or on the GPU.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return _OnCpu(module, size) if device.type == "cpu" else _OnGpu(module, device)


class _OnCpu:
    """OpenVINO, with as many requests in flight as it likes."""

    def __init__(self, module: nn.Module, size: int) -> None:
        require("train", "openvino")
        from edgewright.runtime.silent_openvino import ov

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

    def fill(self, pixel_batches: Iterable[Batch], store: Store) -> None:
        queue = self._queue_type(self._compiled)
        queue.set_callback(lambda request, indices: store(indices, request.get_output_tensor(0).data))
        for batch in pixel_batches:
            queue.start_async({0: batch.inputs.numpy()}, batch.indices.numpy())
        queue.wait_all()


class _OnGpu:
    """PyTorch on the GPU that trains, channels last."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        # A copy: the network itself stays where the strategy wants it.
        self._module = copy.deepcopy(module).eval().to(device).to(memory_format=torch.channels_last)
        self._device = device

    def fill(self, pixel_batches: Iterable[Batch], store: Store) -> None:
        with torch.inference_mode():
            for batch in pixel_batches:
                output = self._module(batch.inputs.to(self._device))
                store(batch.indices.numpy(), output.float().cpu().numpy())


class ActivationCache:
    """Outputs of a frozen part for samples x views, memory-mapped in a temporary file that goes with the object.

    Axes [view, sample, ...activation]. A view is computed when it is first asked for.
    """

    def __init__(
        self,
        shape: Sequence[int],
        renderer: Renderer,
        views: Sequence[int],
        dtype: type[np.floating[Any]],
        folder: Path,
    ) -> None:
        """Reserve the file in `folder`.

        Args:
            shape: Of one activation.
            renderer: The pictures.
            views: Row r holds the renderer's view views[r].
            dtype: float16 halves the file; validation wants float32.
            folder: Where the file lies while it is needed.

        Raises:
            OSError: not enough room on the disk.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._renderer, self._views = renderer, list(views)
        self._ready = [False] * len(self._views)
        full = (len(self._views), len(renderer.samples), *shape)
        self._file = tempfile.TemporaryFile(dir=folder, prefix="activations-")  # noqa: SIM115 - lives as long as we do
        size = int(np.prod(full)) * np.dtype(dtype).itemsize
        try:
            # A mapped file that meets a full disk later ends the process with SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, f"No room for {size / 1e6:.0f} MB of activations in", str(folder)) from error
        self._values: npt.NDArray[Any] = np.memmap(self._file, dtype=dtype, mode="r+" if size else "w+", shape=full)

    def __len__(self) -> int:
        return len(self._renderer.samples)

    def ensure(self, row: int, compiled: Compiled, description: str) -> None:
        """Compute the view of `row`, if it is not there yet."""
        if self._ready[row]:
            return

        def store(indices: npt.NDArray[np.int64], output: npt.NDArray[np.float32]) -> None:
            self._values[row, indices] = output

        source = batches(self._renderer, range(len(self)), view=self._views[row], batch=_BATCH)
        label = description if len(self._views) == 1 else f"{description}, view {row + 1} of {len(self._views)}"
        compiled.fill(self._releasing(track(source, label, -(-len(self) // _BATCH))), store)
        self._ready[row] = True
        self.release()

    def _releasing(self, source: Iterable[Batch]) -> Iterator[Batch]:
        for number, batch in enumerate(source):
            if number % _RELEASED == 0:
                self.release()
            yield batch

    def read(self, row: int, indices: npt.NDArray[np.int64] | slice) -> npt.NDArray[Any]:
        """A copy of the activations of some samples in the view of `row`."""
        return np.array(self._values[row, indices])

    def release(self) -> None:
        """Let go of the pages that were touched: they are the disk's cache, not this process' memory."""
        mapping = getattr(self._values, "_mmap", None)
        if mapping is not None and hasattr(mapping, "madvise"):
            mapping.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Delete the file."""
        del self._values
        self._file.close()
