"""Inference engines by name. Adding one means a module here and a line in `BACKENDS`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import cast

from edgewright.runtime.backends.base import Backend, LoadRequest, TensorSpec
from edgewright.runtime.errors import MissingExtraError, UsageError

__all__ = ["BACKENDS", "Backend", "LoadRequest", "TensorSpec", "backend_available", "load_backend"]


@dataclass(frozen=True)
class _Entry:
    target: str
    package: str
    extra: str | None


BACKENDS = {
    "onnxruntime": _Entry("edgewright.runtime.backends.onnxruntime:OnnxRuntimeBackend", "onnxruntime", None),
    "openvino": _Entry("edgewright.runtime.backends.openvino:OpenVinoBackend", "openvino", "openvino"),
    "tensorrt": _Entry("edgewright.runtime.backends.tensorrt:TensorRtBackend", "tensorrt", "tensorrt"),
}


def _entry(name: str) -> _Entry:
    if name not in BACKENDS:
        raise UsageError(f"Unknown backend '{name}'. Available: {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def backend_available(name: str) -> bool:
    """Whether the backend's package is installed here."""
    return importlib.util.find_spec(_entry(name).package) is not None


def load_backend(name: str, request: LoadRequest) -> Backend:
    """Load a model with the backend called `name`.

    Raises:
        UsageError: no such backend.
        MissingExtraError: its package is not installed.
        BackendError: the engine refused the model or the precision.
    """
    entry = _entry(name)
    module, _, cls = entry.target.partition(":")
    try:
        backend = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] == entry.package:
            raise MissingExtraError(entry.package, entry.extra or "") from error
        raise
    return cast("Backend", backend(request))
