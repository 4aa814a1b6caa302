"""From pictures to labels: a bundle's artefact in a backend, behind `predict`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Self

from edgewright.runtime.backends import Backend, LoadRequest, TensorSpec, load_backend
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.images import MAX_PIXELS, ImageSource, read_image
from edgewright.runtime.manifest import Artefact, Manifest, TensorRecord
from edgewright.runtime.preprocess import in_layout, resize_and_crop
from edgewright.runtime.scores import top_scores

__all__ = ["Classifier", "LabelScore", "Prediction", "Timings", "load_request"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one prediction went, in milliseconds."""

    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and the share of the softmax it got, 0 to 1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one picture: the best label, and the `top_k` best with their scores, best first."""

    label: str
    index: int
    score: float
    top_k: tuple[LabelScore, ...]
    timings: Timings


class Classifier:
    """One artefact of a bundle, loaded. Safe to share between threads; a context manager.

    :func:`~edgewright.runtime.loading.load` makes one. Calling it labels one picture, `predict` several, `run` and
    `predict_tensor` start from pixels that are prepared already.
    """

    def __init__(
        self,
        bundle: Bundle,
        artefact: Artefact,
        *,
        backend: str | None = None,
        threads: int | None = None,
        engine: Backend | None = None,
    ) -> None:
        """Load the artefact; or take `engine`, which the backend called `backend` has loaded it into."""
        name = backend or artefact.backend
        if engine is None:
            if artefact.backend != name:
                raise UsageError(
                    f"'{artefact.name}' cannot run on backend '{name}'. It is made for {artefact.backend}."
                )
            engine = load_backend(name, load_request(bundle, artefact, threads))
        self.manifest: Manifest = bundle.manifest
        self.artefact = artefact
        self.backend_name = name
        self._backend = engine
        self._spec = bundle.manifest.preprocess
        self._labels = bundle.manifest.labels
        self._input = bundle.manifest.input.name
        self._shape = bundle.manifest.input.shape[1:]
        try:
            for found, declared in (
                (self._backend.inputs, bundle.manifest.input.in_layout(artefact.layout)),
                (self._backend.outputs, bundle.manifest.output),
            ):
                _require_tensor(found, declared, artefact.name)
        except BackendError:
            self._backend.close()
            raise

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in index order."""
        return self._labels

    def run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32 (N, classes) for uint8 pixels (N, height, width, 3) at model size.

        Raises:
            UsageError: another dtype or shape.
            BackendError: the engine failed.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != self._shape or len(pixels) == 0:
            raise UsageError(
                f"Found a tensor of {pixels.dtype} with shape {pixels.shape}. Expected uint8 with axes "
                f"[batch, height, width, channel] and shape (N, {', '.join(map(str, self._shape))})."
            )
        return self._infer(np.ascontiguousarray(pixels))

    def _infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        feeds = {self._input: in_layout(pixels, self.artefact.layout)}
        logits: npt.NDArray[np.float32] = self._backend.run(feeds)[0]
        if logits.shape != (len(pixels), len(self._labels)):
            # ONNX Runtime does not hold a graph to the shape that it declares.
            raise BackendError(
                f"'{self.artefact.name}' gave logits of shape {logits.shape} for {len(pixels)} pictures and "
                f"{len(self._labels)} labels. Export the bundle again."
            )
        if not np.isfinite(logits).all():
            raise BackendError(
                f"'{self.artefact.name}' gave logits that are not finite numbers. Verify the bundle on this machine: "
                "edgewright verify BUNDLE."
            )
        return logits

    def predict_tensor(self, pixels: npt.NDArray[np.uint8], top_k: int = 5) -> list[Prediction]:
        """Predictions for prepared pixels, uint8 (N, height, width, 3), as one batch; times are per picture."""
        start = perf_counter_ns()
        logits = self.run(pixels)
        end = perf_counter_ns()
        inference_ms = (end - start) / 1e6 / len(pixels)
        return [self._postprocess(row, top_k, 0.0, 0.0, inference_ms) for row in logits]

    def predict(
        self, images: Sequence[ImageSource], top_k: int = 5, *, max_pixels: int = MAX_PIXELS
    ) -> list[Prediction]:
        """Label pictures one after the other.

        Args:
            images: Paths, encoded bytes, Pillow images, or arrays uint8 [height, width, channel].
            top_k: How many labels each prediction lists, at least 1.
            max_pixels: Largest width x height that is decoded.

        Raises:
            ImageError: one of them is not a picture.
        """
        if isinstance(images, (str, bytes, bytearray, os.PathLike, np.ndarray, Image.Image)):
            raise UsageError("predict() takes a list of pictures; call the classifier itself for a single one.")
        return [self._predict_one(image, top_k, max_pixels) for image in images]

    def __call__(self, image: ImageSource, top_k: int = 5) -> Prediction:
        """Label one picture."""
        return self._predict_one(image, top_k, MAX_PIXELS)

    def _predict_one(self, source: ImageSource, top_k: int, max_pixels: int) -> Prediction:
        start = perf_counter_ns()
        image = read_image(source, max_pixels=max_pixels)
        decoded = perf_counter_ns()
        pixels = np.asarray(resize_and_crop(image, self._spec))[np.newaxis]
        prepared = perf_counter_ns()
        logits = self._infer(pixels)
        done = perf_counter_ns()
        return self._postprocess(
            logits[0], top_k, (decoded - start) / 1e6, (prepared - decoded) / 1e6, (done - prepared) / 1e6
        )

    def _postprocess(
        self, logits: npt.NDArray[np.float32], top_k: int, decode_ms: float, preprocess_ms: float, inference_ms: float
    ) -> Prediction:
        start = perf_counter_ns()
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; expected at least 1.")
        best = tuple(LabelScore(self._labels[index], index, score) for index, score in top_scores(logits, top_k))
        timings = Timings(decode_ms, preprocess_ms, inference_ms, (perf_counter_ns() - start) / 1e6)
        return Prediction(best[0].label, best[0].index, best[0].score, best, timings)

    def close(self) -> None:
        """Release the engine."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_request(bundle: Bundle, artefact: Artefact, threads: int | None, precision: str | None = None) -> LoadRequest:
    """What a backend is asked for, with the artefact's verified bytes; in its own precision unless told otherwise."""
    model, weights = bundle.artefact_bytes(artefact)
    return LoadRequest(model, weights, precision or artefact.executed, threads, artefact.name)


def _require_tensor(found: Sequence[TensorSpec], declared: TensorRecord, name: str) -> None:
    """Compare what the engine found in the file with what the manifest says, axis by axis."""
    shape = tuple(None if axis == -1 else axis for axis in declared.shape)
    wanted = TensorSpec(declared.name, declared.dtype, shape)
    if list(found) != [wanted]:
        raise BackendError(
            f"'{name}' has the tensors {list(found)}; the manifest says {wanted}. Export the bundle again."
        )
