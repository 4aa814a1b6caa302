"""Inference engines by name. Adding one means a module here and a line in `BACKENDS`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import cast

from edgewright.runtime.backends.base import (
    DEFAULT_SETTINGS,
    Backend,
    EngineClock,
    EngineSettings,
    Execution,
    LoadRequest,
    TensorSpec,
)
from edgewright.runtime.backends.devices import parse_device
from edgewright.runtime.errors import MissingExtraError, UsageError

__all__ = [
    "BACKENDS",
    "DEFAULT_SETTINGS",
    "Backend",
    "EngineClock",
    "EngineSettings",
    "Execution",
    "LoadRequest",
    "TensorSpec",
    "backend_available",
    "load_backend",
    "why_no_device",
]


@dataclass(frozen=True)
class _Entry:
    """Module and class; the package it needs, None if none; the extra that brings that."""

    target: str
    package: str | None
    extra: str | None


BACKENDS = {
    "onnxruntime": _Entry("edgewright.runtime.backends.onnxruntime:OnnxRuntimeBackend", "onnxruntime", None),
    "openvino": _Entry("edgewright.runtime.backends.openvino:OpenVinoBackend", "openvino", "openvino"),
    "tensorrt": _Entry("edgewright.runtime.backends.tensorrt:TensorRtBackend", "tensorrt", "tensorrt"),
    "remote": _Entry("edgewright.runtime.backends.remote:RemoteBackend", None, None),
}


def _entry(name: str) -> _Entry:
    if name not in BACKENDS:
        raise UsageError(f"Unknown backend '{name}'. Available: {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def backend_available(name: str) -> bool:
    """Whether the backend's package is installed here."""
    package = _entry(name).package
    return package is None or importlib.util.find_spec(package) is not None


def why_no_device(name: str, device: str, precision: str) -> str:
    """Why the backend called `name`, which is installed, executes no `precision` on `device` of this machine; else empty.

    Raises:
        UsageError: no device is called so.
    """
    module = importlib.import_module(_entry(name).target.partition(":")[0])
    return str(module.why_not_on(parse_device(device), precision))


def load_backend(name: str, request: LoadRequest) -> Backend:
    """Load a model with the backend called `name`.

    Raises:
        UsageError: no such backend, or no such device on this machine.
        MissingExtraError: its package is not installed.
        BackendError: the engine refused the model or the precision.
    """
    entry = _entry(name)
    module, _, cls = entry.target.partition(":")
    try:
        backend = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        if entry.package is not None and error.name is not None and error.name.partition(".")[0] == entry.package:
            raise MissingExtraError(entry.package, entry.extra or "") from error
        raise
    return cast("Backend", backend(request))
