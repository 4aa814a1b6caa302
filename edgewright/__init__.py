"""edgewright: from a folder of images to a verified, quantized, benchmarked classifier on an edge device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.version import __version__

if TYPE_CHECKING:
    from edgewright.runtime.classifier import Classifier, Prediction
    from edgewright.runtime.errors import EdgewrightError
    from edgewright.runtime.loading import load

__all__ = ["Classifier", "EdgewrightError", "Prediction", "__version__", "load"]

_HOMES = {
    "Classifier": "edgewright.runtime.classifier",
    "EdgewrightError": "edgewright.runtime.errors",
    "Prediction": "edgewright.runtime.classifier",
    "load": "edgewright.runtime.loading",
}


def __getattr__(name: str) -> object:
    """Import on first use, so that `edgewright --help` does not pay for numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
