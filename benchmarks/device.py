"""What machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgewright.runtime.machine import cpu_name_and_features, emulation
from edgewright.runtime.parallel import available_cores

__all__ = ["DeviceFacts", "device_facts", "nvidia_gpus"]

_PACKAGES = ("edgewright", "numpy", "pillow", "onnxruntime", "openvino")


@dataclass(frozen=True)
class DeviceFacts:
    """The machine. `cpu_features` lists only those that decide how fast INT8 and bf16 are; `gpus` are NVIDIA's; figures
    of an `emulated` processor say nothing about a real one.
    """

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_gib: float | None
    system: str
    machine: str
    python: str
    versions: dict[str, str]
    load_average: float | None
    gpus: tuple[str, ...] = ()
    emulated: bool = False


def device_facts() -> DeviceFacts:
    """Read the facts that this system tells; None stands for those it does not."""
    cpu, features = cpu_name_and_features()
    return DeviceFacts(
        cpu=cpu,
        cpu_features=features,
        cores=available_cores(),
        memory_gib=_memory_gib(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=platform.python_version(),
        versions={name: version for name in _PACKAGES if (version := _version(name)) is not None},
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        gpus=nvidia_gpus(),
        emulated=emulation() is not None,
    )


def nvidia_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Names of the GPUs that NVIDIA's driver has, as it tells them under /proc; a Jetson's is part of the board instead."""
    names = []
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        for line in file.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                names.append(value.strip())
    return tuple(names)


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
