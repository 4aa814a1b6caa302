"""A machine with a GPU, as far as the runner can tell: its memory, its streams, and what the strict fake of CUDA does.

Work put on a stream is done when the stream is synchronised, and not before, so code that does not wait reads zeros.
Memory is real memory of this process; what lies outside an allocation, or on the wrong side, is refused.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Machine:
    """The GPU, its memory and streams, and the ways in which it can fail."""

    gpu: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    driver: int = 12060
    dla_cores: int = 2
    has_gpu: bool = True
    builds: bool = True
    runs: bool = True
    gives_context: bool = True
    computes: str = ""
    memory_left: int = 1 << 40
    trt: Any = None
    allocations: dict[int, tuple[str, Any]] = field(default_factory=dict)
    streams: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    builds_done: list[dict[str, Any]] = field(default_factory=list)

    def allocate(self, kind: str, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.allocations[address] = (kind, block)
        return address

    def release(self, kind: str, address: int) -> bool:
        if self.allocations.get(address, ("",))[0] != kind:
            return False
        del self.allocations[address]
        return True

    def memory(self, kind: str, address: int, size: int) -> Any:
        """The block at `address`, or None if there is none of this kind and size."""
        found, block = self.allocations.get(address, ("", b""))
        return block if found == kind and size <= len(block) else None


def cuda_behaviours(machine: Machine, cuda: Callable[[], Any]) -> dict[str, Callable[..., Any]]:
    """What CUDA's functions do. `cuda()` is the fake they belong to."""

    def code(name: str = "cudaSuccess") -> Any:
        return getattr(cuda().module.cudaError_t, name)

    def here(*results: Any) -> tuple[Any, ...]:
        return (code(), *results) if machine.has_gpu else (code("cudaErrorNoDevice"), *[None for _ in results])

    def properties(device: int) -> tuple[Any, ...]:
        major, minor = machine.capability
        name = machine.gpu.encode() + b"\0" * 8
        return here(cuda().new("cudaDeviceProp", name=name, major=major, minor=minor))

    def allocate(kind: str, size: int) -> tuple[Any, ...]:
        assert size > 0
        if sum(len(block) for _, block in machine.allocations.values()) + size > machine.memory_left:
            return code("cudaErrorMemoryAllocation"), None
        return here(machine.allocate(kind, size))

    def release(kind: str, address: int) -> tuple[Any]:
        return (code() if machine.release(kind, address) else code("cudaErrorInvalidValue"),)

    def new_stream(flags: int) -> tuple[Any, ...]:
        assert flags == cuda().module.cudaStreamNonBlocking
        handle = 1000 + len(machine.streams)
        machine.streams[handle] = []
        return here(cuda().new("cudaStream_t", integer=handle))

    def destroy(stream: Any) -> tuple[Any]:
        return (
            code() if machine.streams.pop(int(stream), None) is not None else code("cudaErrorInvalidResourceHandle"),
        )

    def synchronize(stream: Any) -> tuple[Any]:
        if int(stream) not in machine.streams:
            return (code("cudaErrorInvalidResourceHandle"),)
        waiting = machine.streams[int(stream)]
        while waiting:
            waiting.pop(0)()
        return (code(),)

    def copy(dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any]:
        kinds = cuda().module.cudaMemcpyKind
        sides = {kinds.cudaMemcpyHostToDevice: ("device", "host"), kinds.cudaMemcpyDeviceToHost: ("host", "device")}
        to, origin = sides[kind]
        target, source = machine.memory(to, dst, count), machine.memory(origin, src, count)
        if target is None or source is None or int(stream) not in machine.streams:
            return (code("cudaErrorInvalidValue"),)
        machine.streams[int(stream)].append(lambda: ctypes.memmove(target, source, count))
        return (code(),)

    return {
        "cudaGetDevice": lambda: here(0),
        "cudaSetDevice": lambda device: here(),
        "cudaGetDeviceProperties": properties,
        "cudaDriverGetVersion": lambda: (code(), machine.driver),
        "cudaMalloc": lambda size: allocate("device", size),
        "cudaMallocHost": lambda size: allocate("host", size),
        "cudaFree": lambda devPtr: release("device", devPtr),  # noqa: N803
        "cudaFreeHost": lambda ptr: release("host", ptr),
        "cudaStreamCreateWithFlags": new_stream,
        "cudaStreamDestroy": destroy,
        "cudaStreamSynchronize": synchronize,
        "cudaMemcpyAsync": copy,
    }


def module_tree(name: str, module: types.ModuleType) -> dict[str, types.ModuleType]:
    """The module under its dotted name, with the packages above it, for `sys.modules`."""
    tree = {name: module}
    while "." in name:
        parent, _, child = name.rpartition(".")
        package = types.ModuleType(parent)
        package.__path__ = []
        setattr(package, child, tree[name])
        tree[parent] = package
        name = parent
    return tree
