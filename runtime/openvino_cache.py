"""OpenVINO's compiled models in the device's cache.

OpenVINO keeps what it compiled in files that it reads back without a check of its own: one flipped byte among the
weights gives other answers and no error. So their checksums are written down when they are made, and files that differ
are thrown away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edgewright.runtime.backends.base import EngineSettings
from edgewright.runtime.console import warn
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.files import atomic_write, sha256_of
from edgewright.runtime.parallel import available_cores, threads_per_stream

__all__ = ["PRECISION_HINTS", "cache_folder", "checked_cache", "compile_settings", "precision_hint", "seal_cache"]

PRECISION_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
"""What the float parts are executed in. INT8 graphs are told f32 as well: their quantized part is in the graph, and the
rest must not slip into bf16 where the CPU has it. An NPU has no f32; there the rest is f16."""

RECORD = "record.json"
_LARGEST_RECORD = 64 * 1024
_LARGEST_FILE = 4 * 1024**3


class _Record(BaseModel):
    """SHA-256 of each file that OpenVINO wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    files: dict[str, str]


def precision_hint(precision: str, executable: Sequence[str]) -> str:
    """What a device that executes `executable` is told for the float parts of a model of this precision."""
    return "f16" if precision == "int8" and "fp32" not in executable else PRECISION_HINTS[precision]


def compile_settings(
    precision: str, settings: EngineSettings, device: str, executable: Sequence[str]
) -> dict[str, str | int]:
    """What OpenVINO compiles a model with for a device. A model kept with other settings is not found in its cache."""
    chosen: dict[str, str | int] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision_hint(precision, executable),
    }
    if device == "CPU":
        streams = settings.streams or 1
        threads = threads_per_stream(settings.threads, streams)
        # OpenVINO counts the threads of all streams together. Fewer than there are cores must not be pinned: every compiled
        # model would take the first cores, and several of one thread each, side by side, would all compute on core 0.
        return {
            **chosen,
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": "YES" if threads * streams >= available_cores() else "NO",
        }
    if settings.streams is not None and device.startswith("GPU"):
        chosen["NUM_STREAMS"] = settings.streams
    return chosen


def cache_folder(
    model: bytes,
    weights: bytes | None,
    precision: str,
    settings: Mapping[str, str | int],
    device: str,
    version: str,
    root: Path | None = None,
) -> Path:
    """The folder for a compiled model; whatever would make OpenVINO compile it again gives another folder.

    Args:
        model: The model's file.
        weights: Its weights.
        precision: What is executed; only for people who look into the cache.
        settings: What it is compiled with.
        device: OpenVINO's name of the device, and the device's full name.
        version: OpenVINO's version.
        root: The device's cache, if it is not the usual one.
    """
    how = sha256_of(json.dumps([dict(settings), device, version], sort_keys=True).encode())
    return device_cache("openvino", root) / f"{sha256_of(model + (weights or b''))[:32]}.{precision}.{how[:16]}"


def _files(folder: Path) -> dict[str, str]:
    """Checksums of all files but the record; a file that is too large to be ours gets none that could be right."""
    return {
        file.name: sha256_of(file.read_bytes()) if file.stat().st_size <= _LARGEST_FILE else "too large"
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != RECORD
    }


def seal_cache(folder: Path) -> None:
    """Write down the checksums of what OpenVINO has put into `folder`."""
    atomic_write(folder / RECORD, _Record(files=_files(folder)).model_dump_json(indent=2) + "\n")


def checked_cache(folder: Path) -> Path | None:
    """`folder` if `edgewright compile` made it and nothing in it has changed since; a changed one is removed."""
    if not folder.is_dir():
        return None
    record = folder / RECORD
    try:
        intact = record.stat().st_size <= _LARGEST_RECORD and _Record.model_validate_json(
            record.read_bytes()
        ).files == _files(folder)
    except (OSError, ValueError):  # pydantic's errors are ValueErrors
        intact = False
    if intact:
        return folder
    warn(f"OpenVINO's compiled model in '{folder}' was altered or is incomplete; it is removed and not used")
    shutil.rmtree(folder, ignore_errors=True)
    return None
