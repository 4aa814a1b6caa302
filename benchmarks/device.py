"""What machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgewright.runtime.parallel import available_cores

__all__ = ["DeviceFacts", "device_facts"]

_PACKAGES = ("edgewright", "numpy", "pillow", "onnxruntime", "openvino")
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
)


@dataclass(frozen=True)
class DeviceFacts:
    """The machine. `cpu_features` lists only those that decide how fast INT8 and bf16 are."""

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_gib: float | None
    system: str
    machine: str
    python: str
    versions: dict[str, str]
    load_average: float | None


def device_facts() -> DeviceFacts:
    """Read the facts that this system tells; None stands for those it does not."""
    cpu, flags = _cpu()
    return DeviceFacts(
        cpu=cpu,
        cpu_features=tuple(flag for flag in _CPU_FLAGS if flag in flags),
        cores=available_cores(),
        memory_gib=_memory_gib(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=platform.python_version(),
        versions={name: version for name in _PACKAGES if (version := _version(name)) is not None},
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _cpu() -> tuple[str, set[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    model = Path("/proc/device-tree/model")
    # ARM's cpuinfo names no model; the device tree names the board.
    board = model.read_text(errors="replace").strip("\x00\n ") if model.is_file() else ""
    name = fields.get("model name") or board or platform.processor() or platform.machine()
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not on this system
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
