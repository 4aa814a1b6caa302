"""What happens where TensorRT cannot: ONNX Runtime takes over, and says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from edgewright.runtime.backends import Backend, LoadRequest, load_backend
from edgewright.runtime.errors import BackendError, MissingExtraError

__all__ = ["load_or_fall_back"]


def load_or_fall_back(request: LoadRequest, instead: Callable[[], LoadRequest] | None = None) -> tuple[Backend, str]:
    """Load with TensorRT, or, with a RuntimeWarning, with ONNX Runtime.

    Args:
        request: An ONNX artefact for TensorRT.
        instead: Reads what ONNX Runtime loads; by default the same file, so that what is computed stays the same. Another
            artefact of the bundle is usually faster there.

    Returns:
        The loaded model, and the name of the backend that has it.

    Raises:
        BackendError: ONNX Runtime cannot load it either.
    """
    try:
        return load_backend("tensorrt", request), "tensorrt"
    except (BackendError, MissingExtraError) as error:
        other = request if instead is None else instead()
        # On the CPU: what was asked for is a GPU.
        other = replace(other, settings=replace(other.settings, device=None))
        loaded = load_backend("onnxruntime", other)
        warnings.warn(
            f"TensorRT cannot run '{request.name}' here: {error} ONNX Runtime runs '{other.name}' instead, on the CPU.",
            RuntimeWarning,
            stacklevel=5,  # whoever called `load`
        )
        return loaded, "onnxruntime"
