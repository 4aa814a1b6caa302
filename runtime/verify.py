"""Golden vectors through every artefact that runs here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import BackendError, BundleError
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


def verify_bundle(bundle: Bundle) -> list[Verification]:
    """Prove that decoding, preprocessing and every engine on this machine agree with training.

    Decoding and preprocessing are judged by the tensors they give; engines get the golden tensors, so that a
    difference is blamed on the right part.

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
    golden = np.stack(tensors)
    ours = np.stack([preprocess(bundle.read(vector.image), manifest.preprocess) for vector in manifest.golden])
    tensor_diff = int(np.abs(ours.astype(np.int16) - golden.astype(np.int16)).max())
    logits = np.asarray([vector.logits for vector in manifest.golden], dtype=np.float32)
    return [_verify(bundle, artefact.name, golden, logits, tensor_diff) for artefact in manifest.artefacts]


def _verify(
    bundle: Bundle, name: str, golden: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], tensor_diff: int
) -> Verification:
    artefact = bundle.manifest.artefact(name)
    allowed = artefact.parity.golden_tolerance
    if reason := why_not_here(artefact):
        return Verification(name, None, tensor_diff, None, allowed, reason)
    try:
        with Classifier(bundle, artefact) as classifier:
            found = classifier.run(golden)
    except BackendError as error:
        # Also a model whose outputs are not the labels.
        return Verification(name, False, tensor_diff, None, allowed, str(error))
    difference = float(np.abs(found - logits).max())
    reasons = []
    if tensor_diff > TENSOR_TOLERANCE:
        reasons.append(f"preprocessing here differs by up to {tensor_diff} of 255, allowed {TENSOR_TOLERANCE}")
    # Written so that NaN fails.
    if not difference <= allowed:
        reasons.append(f"logits differ by up to {difference:.4g}, allowed {allowed:.4g}")
    finite = difference if np.isfinite(difference) else None
    return Verification(name, not reasons, tensor_diff, finite, allowed, "; ".join(reasons))
