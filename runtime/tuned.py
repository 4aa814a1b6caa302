"""What `edgewright tune` found to be best on this device, and when that still holds.

It lies in the device's cache, never in the bundle: a bundle goes to other devices, and what is best there is another matter.
A choice is for one bundle, byte for byte, on one machine with one set of engines; anything else, and it is told why it is
passed over.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.runtime.console import warn
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.files import atomic_write, sha256_of
from edgewright.runtime.machine import cpu_name_and_features
from edgewright.runtime.manifest import Manifest
from edgewright.runtime.parallel import available_cores

__all__ = ["TunedChoice", "device_fingerprint", "forget_choice", "keep_choice", "manifest_sha256", "tuned_choice"]

_LARGEST = 64 * 1024
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


class TunedChoice(BaseModel):
    """An artefact of a bundle, how to run it on this device, and what was found of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = Field(1, ge=1, le=1)
    bundle: str
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    fingerprint: dict[str, str]
    artefact: str
    device: str | None = None
    threads: int | None = Field(None, ge=1, le=1024)
    p50_ms: float = Field(gt=0)
    tuned_at: str


def manifest_sha256(manifest: Manifest) -> str:
    """Of the manifest, which has the checksum of everything else."""
    return sha256_of(manifest.model_dump_json().encode())


def device_fingerprint() -> dict[str, str]:
    """What a measurement depends on that does not change from one minute to the next."""
    cpu, features = cpu_name_and_features()
    engines = {name: version for name in _ENGINES if (version := _version(name)) is not None}
    return {
        "cpu": cpu,
        "features": " ".join(features),
        "cores": str(available_cores()),
        "machine": platform.machine(),
        **engines,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _file(manifest: Manifest, cache: Path | None) -> Path:
    return device_cache("tuned", cache) / f"{manifest_sha256(manifest)[:32]}.json"


def keep_choice(choice: TunedChoice, manifest: Manifest, cache: Path | None = None) -> Path:
    """Remember a choice; returns where."""
    path = _file(manifest, cache)
    atomic_write(path, json.dumps(choice.model_dump(), indent=2) + "\n")
    return path


def forget_choice(manifest: Manifest, cache: Path | None = None) -> bool:
    """Whether there was one."""
    path = _file(manifest, cache)
    found = path.is_file()
    path.unlink(missing_ok=True)
    return found


def tuned_choice(manifest: Manifest, cache: Path | None = None) -> TunedChoice | None:
    """The choice for this bundle on this device; None without one. One that no longer holds is passed over with a warning."""
    path = _file(manifest, cache)
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"'{path}' cannot be read ({error.strerror}): what was tuned for this device is not used")
        return None
    try:
        if len(data) > _LARGEST:
            raise ValueError("too large")
        choice = TunedChoice.model_validate_json(data)
    except (ValidationError, ValueError):
        warn(f"'{path}' is damaged: what was tuned for this device is not used. Run `edgewright tune` again.")
        return None
    if choice.manifest_sha256 != manifest_sha256(manifest) or choice.artefact not in [
        artefact.name for artefact in manifest.artefacts
    ]:
        warn(f"'{path}' is of another bundle: it is not used. Run `edgewright tune` again.")
        return None
    now = device_fingerprint()
    changed = [key for key in {**choice.fingerprint, **now} if choice.fingerprint.get(key) != now.get(key)]
    if changed:
        what = ", ".join(
            f"{key} was {choice.fingerprint.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in changed
        )
        warn(f"what was tuned for this device does not hold any more ({what}). Run `edgewright tune` again.")
        return None
    return choice
