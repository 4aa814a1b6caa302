"""Golden vectors through every artefact that runs here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends import DEFAULT_SETTINGS, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import BackendError, PrecisionError
from edgewright.runtime.golden import allowed_difference, golden_difference, golden_tensors
from edgewright.runtime.loading import why_not_here
from edgewright.runtime.preprocess import preprocess

__all__ = ["TENSOR_TOLERANCE", "Verification", "verify_bundle"]

TENSOR_TOLERANCE = 2
"""Largest difference of a pixel, of 255: JPEG decoders of different platforms round differently."""


@dataclass(frozen=True)
class Verification:
    """One artefact on the golden vectors.

    Attributes:
        passed: None if the artefact could not be tried here; `reason` then says why.
        tensor_max_abs_diff: Largest difference between a tensor made here and the golden one, of 255.
        max_abs_logit_diff: Largest difference between logits computed here, from golden tensors, and the trained
            model's.
        allowed_logit_diff: What the manifest allows for this artefact.
    """

    name: str
    passed: bool | None
    tensor_max_abs_diff: int | None
    max_abs_logit_diff: float | None
    allowed_logit_diff: float
    reason: str


def verify_bundle(bundle: Bundle, settings: EngineSettings = DEFAULT_SETTINGS) -> list[Verification]:
    """Prove that decoding, preprocessing and every engine on this machine, or a server, agree with training.

    Decoding and preprocessing are judged by the tensors they give; engines get the golden tensors, so that a
    difference is blamed on the right part.

    Raises:
        BundleError: the bundle has no golden vectors, or they are not what they should be.
        BackendError: the server cannot be used.
    """
    manifest = bundle.manifest
    golden = golden_tensors(bundle)
    ours = np.stack([preprocess(bundle.read(vector.image), manifest.preprocess) for vector in manifest.golden])
    tensor_diff = int(np.abs(ours.astype(np.int16) - golden.astype(np.int16)).max())
    if settings.remote is not None:
        with Classifier(bundle, manifest.artefact(manifest.recommended), settings=settings) as classifier:
            return [_judge(bundle, classifier, "remote", golden, tensor_diff)]
    return [_verify(bundle, artefact.name, golden, tensor_diff, settings) for artefact in manifest.artefacts]


def _verify(
    bundle: Bundle, name: str, golden: npt.NDArray[np.uint8], tensor_diff: int, settings: EngineSettings
) -> Verification:
    artefact = bundle.manifest.artefact(name)
    allowed = artefact.parity.golden_tolerance
    if reason := why_not_here(artefact, settings.device):
        return Verification(name, None, tensor_diff, None, allowed, reason)
    try:
        with Classifier(bundle, artefact, settings=settings) as classifier:
            return _judge(bundle, classifier, name, golden, tensor_diff)
    except PrecisionError as error:
        # What would be tried is not what the bundle has: neither passed nor failed, and never chosen here.
        return Verification(name, None, tensor_diff, None, allowed, str(error))
    except BackendError as error:
        # Also a model whose outputs are not the labels.
        return Verification(name, False, tensor_diff, None, allowed, str(error))


def _judge(
    bundle: Bundle, classifier: Classifier, name: str, golden: npt.NDArray[np.uint8], tensor_diff: int
) -> Verification:
    allowed = allowed_difference(classifier)
    difference = golden_difference(bundle, classifier, golden)
    reasons = []
    if tensor_diff > TENSOR_TOLERANCE:
        reasons.append(f"preprocessing here differs by up to {tensor_diff} of 255, allowed {TENSOR_TOLERANCE}")
    # Written so that NaN fails.
    if not difference <= allowed:
        reasons.append(f"logits differ by up to {difference:.4g}, allowed {allowed:.4g}")
    finite = difference if np.isfinite(difference) else None
    return Verification(name, not reasons, tensor_diff, finite, allowed, "; ".join(reasons))
