"""What a device is, and the virtual environment that fits it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgewright.runtime.errors import DeployError
from edgewright.runtime.machine import l4t_release_in
from edgewright.runtime.manifest import Manifest

__all__ = ["BASE_MB", "Board", "Environment", "board_of", "choose_environment"]

BASE_MB = 230
"""What the largest base installation takes with bytecode, that of Python 3.10 on x86-64: see docs/install.md."""
_EXTRA_MB = {"openvino": 220, "serve": 25, "bench": 270, "video": 120, "parquet": 200, "demo": 400}
"""Roughly, with bytecode: to tell of a disk that is far too small before anything is copied, and for nothing else."""
_JETPACK = {"35": "5", "36": "6", "38": "7", "39": "7"}
"""Jetson Linux's major version to JetPack's. https://developer.nvidia.com/embedded/jetson-linux-archive"""

Kind = Literal["jetson", "raspberry-pi", "arm", "x86"]


@dataclass(frozen=True, slots=True)
class Board:
    """A device as it describes itself.

    Attributes:
        kind: What decides how edgewright is installed.
        name: For people: the board, else the system and its kind of CPU.
        machine: `platform.machine()`: aarch64 or x86_64.
        jetpack: Of a Jetson, its major version, if Jetson Linux's is known.
        tensorrt: Version of the system's TensorRT, if its Python can import it.
        python: Path of the interpreter.
        python_version: Its version.
    """

    kind: Kind
    name: str
    machine: str
    jetpack: str | None
    tensorrt: str | None
    python: str
    python_version: str


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment to be made on the device.

    Attributes:
        extras: Of edgewright.
        packages: Besides it, as pip wants them.
        system_packages: Whether it sees those of the system: a Jetson's TensorRT comes only so.
        size_mb: Roughly what it takes on the disk, in MB of 10^6 bytes.
    """

    extras: tuple[str, ...]
    packages: tuple[str, ...]
    system_packages: bool
    size_mb: int


def board_of(facts: Mapping[str, Any]) -> Board:
    """From what `on_device.probe` found.

    Raises:
        DeployError: a machine that edgewright has no engine for.
    """
    machine, model, l4t = str(facts["machine"]), str(facts["model"]), str(facts["l4t"])
    if machine not in ("x86_64", "aarch64"):
        bits = " (a 32-bit system)" if re.fullmatch(r"arm.*|i.86", machine) else ""
        raise DeployError(
            f"The device is a '{machine}'{bits}. Expected x86_64 or aarch64: ONNX Runtime has no wheels for others. "
            "A Raspberry Pi 3 or later runs the 64-bit system."
        )
    kind: Kind = "x86" if machine == "x86_64" else "arm"
    if l4t or "jetson" in model.lower():
        kind = "jetson"
    elif "raspberry pi" in model.lower():
        kind = "raspberry-pi"
    release = l4t_release_in(l4t) or ""
    return Board(
        kind=kind,
        name=model or f"{facts['system']}, {machine}",
        machine=machine,
        jetpack=_JETPACK.get(release.partition(".")[0]),
        tensorrt=facts["tensorrt"],
        python=str(facts["python"]),
        python_version=str(facts["python_version"]),
    )


def choose_environment(
    board: Board, manifest: Manifest, extras: tuple[str, ...] | None = None, *, service: bool = False
) -> Environment:
    """What to install: as little as runs the bundle there.

    OpenVINO where the bundle has artefacts for it and no TensorRT is there to be faster; TensorRT is the system's own and
    is never installed; the server's packages where it is to serve.
    """
    backends = {artefact.backend for artefact in manifest.artefacts}
    if extras is None:
        extras = ("openvino",) if "openvino" in backends and board.kind != "jetson" else ()
    if service:
        extras = tuple(dict.fromkeys((*extras, "serve")))
    system = board.kind == "jetson" and board.tensorrt is not None
    # JetPack 6 has CUDA 12, JetPack 7 has CUDA 13; the bindings' major version is CUDA's.
    cuda = {"6": "cuda-python>=12,<13", "7": "cuda-python>=13,<14"}.get(board.jetpack or "", "cuda-python>=12")
    return Environment(
        extras=extras,
        packages=(cuda,) if system else (),
        system_packages=system,
        size_mb=BASE_MB + sum(_EXTRA_MB[extra] for extra in extras),
    )
