"""OpenVINO's compiled models in the device's cache.

OpenVINO keeps what it compiled in files that it reads back without a check of its own: one flipped byte among the
weights gives other answers and no error. So their checksums are written down when they are made, and files that differ
are thrown away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edgewright.runtime.console import warn
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.files import atomic_write, sha256_of
from edgewright.runtime.parallel import available_cores

__all__ = ["PRECISION_HINTS", "cache_folder", "checked_cache", "compile_settings", "seal_cache"]

PRECISION_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
"""What the float parts are executed in. INT8 graphs are told f32 as well: their quantized part is in the graph, and the
rest must not slip into bf16 where the CPU has it."""

RECORD = "record.json"
_LARGEST_RECORD = 64 * 1024
_LARGEST_FILE = 4 * 1024**3


class _Record(BaseModel):
    """SHA-256 of each file that OpenVINO wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    files: dict[str, str]


def compile_settings(precision: str, threads: int | None) -> dict[str, str | int]:
    """What OpenVINO compiles a model with. A model kept with other settings is not found in its cache."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
        "INFERENCE_NUM_THREADS": threads or available_cores(),
    }


def cache_folder(
    model: bytes, weights: bytes | None, precision: str, settings: Mapping[str, str | int], device: str, version: str
) -> Path:
    """The folder for a compiled model; whatever would make OpenVINO compile it again gives another folder.

    Args:
        model: The model's file.
        weights: Its weights.
        precision: What is executed; only for people who look into the cache.
        settings: What it is compiled with.
        device: The processor's full name.
        version: OpenVINO's version.
    """
    how = sha256_of(json.dumps([dict(settings), device, version], sort_keys=True).encode())
    return device_cache("openvino") / f"{sha256_of(model + (weights or b''))[:32]}.{precision}.{how[:16]}"


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
