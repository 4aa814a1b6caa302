"""Golden vectors: real pictures, the tensors they become, and the trained model's logits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgewright.runtime.errors import BundleError, GateError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.classifier import Classifier

__all__ = ["allowed_difference", "golden_difference", "golden_tensors", "require_golden"]


def golden_tensors(bundle: Bundle) -> npt.NDArray[np.uint8]:
    """The golden tensors, uint8 (N, height, width, 3).

    Raises:
        BundleError: the bundle has no golden vectors, or they are not what they should be.
    """
    manifest = bundle.manifest
    if not manifest.golden:
        raise BundleError(f"'{bundle.path}' has no golden vectors. Export it again with --golden 6.")
    shape = manifest.input.shape[1:]
    tensors = []
    for vector in manifest.golden:
        raw = np.frombuffer(bundle.read(vector.tensor), dtype=np.uint8)
        if raw.size != int(np.prod(shape)):
            raise BundleError(f"'{vector.tensor}' has {raw.size} values, expected {shape}. Export the bundle again.")
        tensors.append(raw.reshape(shape))
    return np.stack(tensors)


def golden_difference(bundle: Bundle, classifier: Classifier, tensors: npt.NDArray[np.uint8]) -> float:
    """Largest difference between the trained model's logits and those for the golden `tensors` here.

    Raises:
        BackendError: the engine failed.
    """
    logits = np.asarray([vector.logits for vector in bundle.manifest.golden], dtype=np.float32)
    return float(np.abs(classifier.run(tensors) - logits).max())


def allowed_difference(classifier: Classifier) -> float:
    """What the manifest allows: for the artefact that runs, or, on a server, for the least exact, as it may run any."""
    if classifier.backend_name == "remote":
        return max(artefact.parity.golden_tolerance for artefact in classifier.manifest.artefacts)
    return classifier.artefact.parity.golden_tolerance


def require_golden(bundle: Bundle, classifier: Classifier) -> None:
    """Refuse an engine or a server that does not compute what was trained.

    Raises:
        BundleError: the bundle has no golden vectors.
        BackendError: the engine failed.
        GateError: logits differ by more than the manifest allows.
    """
    difference, allowed = golden_difference(bundle, classifier, golden_tensors(bundle)), allowed_difference(classifier)
    # Written so that NaN fails.
    if not difference <= allowed:
        where = (
            f"{classifier.execution.provider} gives" if classifier.backend_name == "remote" else "This machine gives"
        )
        raise GateError(
            f"{where} other logits than the trained model of '{bundle.manifest.name}': they differ by up to "
            f"{difference:.4g}, allowed {allowed:.4g}. It is another model, or is executed in another precision."
        )
