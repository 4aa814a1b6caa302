"""Engines on this device: one file each, and beside it what it was built from, for what and where.

An engine only runs on the kind of GPU and with the version of TensorRT that it was built with, so both are in its key,
as is the ONNX file's checksum. TensorRT executes what is in an engine: it is read only when its own checksum is the one
that was written down at building.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.files import atomic_write, sha256_of
from edgewright.runtime.tensorrt.cuda import GpuDevice
from edgewright.runtime.tensorrt.library import parse_version
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions

__all__ = ["EngineCache", "EngineKey", "EngineRecord", "Found", "make_key"]

LARGEST_ENGINE = 4 * 1024**3
LARGEST_TIMING_CACHE = 512 * 1024**2
_LARGEST_RECORD = 64 * 1024

_FIELDS = {
    "onnx_sha256": "ONNX file",
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "cuda": "CUDA",
    "precision": "precision",
    "batch": "batch sizes",
    "workspace_mb": "workspace (MiB)",
    "dla": "DLA core",
    "version_compatible": "version compatibility",
    "hardware_compatible": "hardware compatibility",
}
_OF_THE_BUILD = ("batch", "workspace_mb", "dla", "version_compatible", "hardware_compatible")
_OLDEST_COMPATIBLE_GPU = (8, 0)

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EngineKey(_Frozen):
    """All that decides whether an engine may be used: the model, the machine, and what was asked for."""

    onnx_sha256: str = Sha256
    tensorrt: str
    gpu: str
    compute_capability: str = Field(pattern=r"^\d+\.\d+$")
    cuda: str
    precision: Literal["fp32", "fp16", "int8"]
    batch: tuple[int, int, int]
    workspace_mb: int
    dla: int | None
    version_compatible: bool
    hardware_compatible: bool

    def options(self) -> BuildOptions:
        """What to build again for, after the machine has changed."""
        return BuildOptions(
            self.precision,
            BatchProfile(*self.batch),
            self.workspace_mb,
            dla=self.dla,
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
        )


class EngineRecord(_Frozen):
    """The JSON file beside an engine."""

    schema_version: Literal[1] = 1
    key: EngineKey
    engine_sha256: str = Sha256
    size_bytes: int = Field(ge=1, le=LARGEST_ENGINE)
    build_seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Found:
    """What the cache has for a key.

    Attributes:
        plan: The engine, or None if none can be used.
        state: "fresh"; or why not: "absent", "stale", "foreign" (built on another GPU), "corrupt".
        reason: For people; empty if fresh or absent.
        record: What is written beside the engine, where that can be read.
    """

    plan: bytes | None
    state: Literal["fresh", "absent", "stale", "foreign", "corrupt"]
    reason: str
    record: EngineRecord | None


def make_key(onnx: bytes, options: BuildOptions, device: GpuDevice, tensorrt: str) -> EngineKey:
    """The key of the engine that `options` make from `onnx` on `device`."""
    batch = options.batch
    return EngineKey(
        onnx_sha256=sha256_of(onnx),
        tensorrt=tensorrt,
        gpu=device.name,
        compute_capability=device.compute_capability,
        cuda=device.cuda,
        precision=options.precision,
        batch=(batch.minimum, batch.optimum, batch.maximum),
        workspace_mb=options.workspace_mb,
        dla=options.dla,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


class EngineCache:
    """Engines below one folder, by the model's checksum and the precision: building again replaces."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = device_cache("tensorrt") if folder is None else folder

    def engine_file(self, key: EngineKey) -> Path:
        """Where the engine is, or would be."""
        return self.folder / key.onnx_sha256[:32] / f"{key.precision}.engine"

    def record_file(self, key: EngineKey) -> Path:
        """Where its record is."""
        return self.engine_file(key).with_suffix(".json")

    def timing_file(self, key: EngineKey) -> Path:
        """Where kernel times of this TensorRT on this GPU are kept, for all models."""
        gpu = "".join(character if character.isalnum() else "-" for character in key.gpu)
        return self.folder / "timing" / f"{key.tensorrt}_{gpu}_{key.compute_capability}.cache"

    def find(self, key: EngineKey, *, as_built: bool = False) -> Found:
        """Look for the engine of `key`.

        Args:
            key: What is wanted.
            as_built: Take it with whatever batch sizes and flags it was compiled with.
        """
        engine = self.engine_file(key)
        try:
            record = self._record(key)
        except (OSError, ValueError) as error:  # pydantic's errors are ValueErrors
            why = error.strerror if isinstance(error, OSError) else "it is no such record"
            return Found(None, "corrupt", f"the record beside it cannot be read ({why})", None)
        if record is None:
            if engine.exists():
                return Found(None, "corrupt", "it has no record of what it was built from", None)
            return Found(None, "absent", "", None)
        if differences := _differences(record.key, key, as_built=as_built):
            same_gpu = (record.key.gpu, record.key.compute_capability) == (key.gpu, key.compute_capability)
            return Found(None, "stale" if same_gpu else "foreign", "; ".join(differences), record)
        try:
            size = engine.stat().st_size
            plan = engine.read_bytes() if size == record.size_bytes else b""
        except OSError as error:
            return Found(None, "corrupt", f"its file cannot be read ({error.strerror})", record)
        if size != record.size_bytes:
            return Found(None, "corrupt", f"it has {size:,} bytes, expected {record.size_bytes:,}", record)
        if sha256_of(plan) != record.engine_sha256:
            return Found(None, "corrupt", "its SHA-256 is not the one written down when it was built", record)
        return Found(plan, "fresh", "", record)

    def _record(self, key: EngineKey) -> EngineRecord | None:
        file = self.record_file(key)
        if not file.is_file():
            return None
        if file.stat().st_size > _LARGEST_RECORD:
            raise ValueError(f"larger than {_LARGEST_RECORD} bytes")
        return EngineRecord.model_validate_json(file.read_bytes())

    def record(self, key: EngineKey, plan: bytes, build_seconds: float) -> EngineRecord:
        """What is written beside an engine."""
        return EngineRecord(
            key=key, engine_sha256=sha256_of(plan), size_bytes=len(plan), build_seconds=round(build_seconds, 3)
        )

    def store(self, record: EngineRecord, plan: bytes) -> None:
        """Keep an engine: the file first, then its record, so that a crash in between shows as a wrong checksum.

        Raises:
            OSError: the folder cannot be written.
        """
        atomic_write(self.engine_file(record.key), plan)
        atomic_write(self.record_file(record.key), record.model_dump_json(indent=2) + "\n")

    def timings(self, key: EngineKey) -> bytes | None:
        """The kept kernel times, None if there are none; TensorRT checks them itself."""
        file = self.timing_file(key)
        if not file.is_file() or file.stat().st_size > LARGEST_TIMING_CACHE:
            return None
        return file.read_bytes()

    def store_timings(self, key: EngineKey, timings: bytes) -> None:
        """Keep kernel times."""
        if len(timings) <= LARGEST_TIMING_CACHE:
            atomic_write(self.timing_file(key), timings)


def _differences(built: EngineKey, wanted: EngineKey, *, as_built: bool) -> list[str]:
    """What keeps the engine of `built` from being that of `wanted`, in words; nothing if it may be used."""
    ignored = set(_OF_THE_BUILD) if as_built else set()
    if built.version_compatible and parse_version(built.tensorrt) <= parse_version(wanted.tensorrt):
        ignored |= {"tensorrt", "cuda"}
    capability = tuple(int(number) for number in wanted.compute_capability.split("."))
    if built.hardware_compatible and capability >= _OLDEST_COMPATIBLE_GPU:
        ignored |= {"gpu", "compute_capability"}
    before, now = built.model_dump(), wanted.model_dump()
    return [
        f"{label} was {_short(before[name])}, is {_short(now[name])}"
        for name, label in _FIELDS.items()
        if name not in ignored and before[name] != now[name]
    ]


def _short(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value[:16]}…" if isinstance(value, str) and len(value) == 64 else str(value)
