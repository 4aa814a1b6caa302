"""The little of CUDA's runtime that an engine needs, through cuda-python; error codes become exceptions.

cuda-python calls its module `cuda.bindings.runtime` since 12.8, `cuda.cudart` before. Its functions return a tuple: the
error code, then the results.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.runtime.errors import BackendError, MissingExtraError

__all__ = ["Cuda", "GpuDevice", "PinnedBuffer", "load_cuda"]

MODULES = ("cuda.bindings.runtime", "cuda.cudart")


@dataclass(frozen=True)
class GpuDevice:
    """The GPU that engines are built for and run on.

    Attributes:
        index: CUDA's number of it.
        name: For example "Orin" or "NVIDIA H200".
        compute_capability: For example "8.7".
        cuda: The CUDA version that the driver offers, for example "12.6".
    """

    index: int
    name: str
    compute_capability: str
    cuda: str


@dataclass(frozen=True)
class PinnedBuffer:
    """Page-locked host memory, which the GPU reads and writes directly, and the same as bytes for numpy."""

    address: int
    view: npt.NDArray[np.uint8]


def load_cuda() -> Cuda:
    """CUDA's runtime.

    Raises:
        MissingExtraError: cuda-python is not installed.
    """
    for name in MODULES:
        try:
            return Cuda(importlib.import_module(name))
        except ImportError as error:
            if error.name is None or not name.startswith(error.name):
                raise BackendError(f"cuda-python is installed but does not load: {error}. Install it again.") from error
    raise MissingExtraError("cuda-python", "tensorrt")


class Cuda:
    """CUDA's runtime, each call checked."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call `function`; its one result, or None if it has none.

        Raises:
            BackendError: it returned an error code, or there is no driver to call.
        """
        try:
            code, *results = getattr(self._module, function)(*arguments)
        except RuntimeError as error:
            # cuda-python raises instead of returning a code where libcuda.so is not there at all.
            raise BackendError(f"CUDA does not work here: {error}. Expected an NVIDIA GPU and its driver.") from error
        if code != self._module.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA: {function} failed with {code.name}.{_advice(code.name)}")
        return results[0] if results else None

    def device(self) -> GpuDevice:
        """The current GPU.

        Raises:
            BackendError: there is none, or no driver for it.
        """
        index = int(self._call("cudaGetDevice"))
        properties = self._call("cudaGetDeviceProperties", index)
        version = int(self._call("cudaDriverGetVersion"))
        return GpuDevice(
            index,
            properties.name.split(b"\0")[0].decode("utf-8", "replace"),
            f"{properties.major}.{properties.minor}",
            f"{version // 1000}.{version % 1000 // 10}",
        )

    def use(self, index: int) -> None:
        """Make this GPU the calling thread's: each thread has a current GPU of its own."""
        self._call("cudaSetDevice", index)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give GPU memory back."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size: int) -> PinnedBuffer:
        """`size` bytes of page-locked host memory."""
        address = int(self._call("cudaMallocHost", size))
        block = (ctypes.c_uint8 * size).from_address(address)
        return PinnedBuffer(address, np.frombuffer(memoryview(block), dtype=np.uint8))

    def free_pinned(self, buffer: PinnedBuffer) -> None:
        """Give page-locked memory back; the buffer's view must not be used any more."""
        self._call("cudaFreeHost", buffer.address)

    def create_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self._call("cudaStreamCreateWithFlags", self._module.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Any) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: Any) -> None:
        """Wait until the stream has done all that it was given."""
        self._call("cudaStreamSynchronize", stream)

    def copy_to_device(self, address: int, source: PinnedBuffer, size: int, stream: Any) -> None:
        """Let the stream copy `size` bytes from the host to the GPU."""
        kind = self._module.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.address, size, kind, stream)

    def copy_to_host(self, target: PinnedBuffer, address: int, size: int, stream: Any) -> None:
        """Let the stream copy `size` bytes from the GPU to the host."""
        kind = self._module.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.address, address, size, kind, stream)


def _advice(code: str) -> str:
    if code == "cudaErrorMemoryAllocation":
        return " The GPU's memory is full: choose a smaller largest batch, or end what else runs on it."
    if code in ("cudaErrorNoDevice", "cudaErrorInsufficientDriver"):
        return " Expected an NVIDIA GPU and a driver that is new enough for this cuda-python."
    return ""
