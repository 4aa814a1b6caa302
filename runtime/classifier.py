"""From pictures to labels: a bundle's artefact in a backend, behind `predict`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Self

from edgewright.runtime.backends import (
    DEFAULT_SETTINGS,
    Backend,
    EngineClock,
    EngineSettings,
    Execution,
    LoadRequest,
    TensorSpec,
    load_backend,
)
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import BackendError, ImageError, UsageError
from edgewright.runtime.images import MAX_PIXELS, ImageSource, read_image
from edgewright.runtime.manifest import Artefact, Layout, Manifest, TensorRecord
from edgewright.runtime.parallel import Helper, available_cores
from edgewright.runtime.picture import Picture
from edgewright.runtime.pipeline import Result, in_order
from edgewright.runtime.preprocess import in_layout, resize_and_crop
from edgewright.runtime.scores import energy, top_scores

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
    """What the model says of one picture: the best label, and the `top_k` best with their scores, best first.

    `known` is False where the picture resembles nothing of what the model was trained on, or the best score is lower than
    was asked for: then the label is a guess.
    """

    label: str
    index: int
    score: float
    known: bool
    top_k: tuple[LabelScore, ...]
    timings: Timings


class Classifier:
    """One artefact of a bundle, loaded. Safe to share between threads; a context manager.

    :func:`~edgewright.runtime.loading.load` makes one. Calling it labels one picture, `predict` several, `stream` any
    number; `run` and `predict_tensor` start from pixels that are prepared already.

    With the backend `remote` a server computes the logits; pictures are still decoded and prepared here, and labelled with
    the bundle's labels. `artefact` is then the one whose results are expected of the server.
    """

    def __init__(
        self,
        bundle: Bundle,
        artefact: Artefact,
        *,
        backend: str | None = None,
        settings: EngineSettings = DEFAULT_SETTINGS,
        engine: Backend | None = None,
    ) -> None:
        """Load the artefact; or take `engine`, which the backend called `backend` has loaded it into."""
        name = backend or ("remote" if settings.remote is not None else artefact.backend)
        if engine is None:
            if name not in (artefact.backend, "remote"):
                raise UsageError(
                    f"'{artefact.name}' cannot run on backend '{name}'. It is made for {artefact.backend}."
                )
            if name != "remote" and settings.remote is not None:
                raise UsageError(f"A server was named, and the backend '{name}'. Leave out one of them.")
            if name == "remote":
                request = LoadRequest(b"", None, artefact.executed, settings, bundle.manifest.name)
            else:
                request = load_request(bundle, artefact, settings)
            engine = load_backend(name, request)
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        self.artefact = artefact
        self.backend_name = name
        self.min_score = 0.0
        self._backend = engine
        self._spec = bundle.manifest.preprocess
        self._labels = bundle.manifest.labels
        self._input = bundle.manifest.input.name
        self._shape = bundle.manifest.input.shape[1:]
        # An engine that is to use one core only has asked for no more of them than that.
        self._helper = Helper() if available_cores() > 1 and engine.execution.threads != 1 else None
        try:
            self._layout = self._agreed_layout()
        except BackendError:
            self.close()
            raise

    def _agreed_layout(self) -> Layout:
        """The layout in which the engine's input is that of the manifest: the artefact's, or whichever a server has.

        Raises:
            BackendError: other tensors than the manifest says.
        """
        layouts: tuple[Layout, ...] = (self.artefact.layout,)
        where, advice = f"'{self.artefact.name}'", "Export the bundle again."
        if self.backend_name == "remote":
            layouts = ("NHWC", "NCHW")
            where, advice = self.execution.provider, "Serve this bundle there, or open the bundle that is served."
        wanted = [_as_spec(self.manifest.input.in_layout(layout)) for layout in layouts]
        found = list(self._backend.inputs)
        if len(found) != 1 or found[0] not in wanted:
            raise BackendError(f"{where} has the tensors {found}; the manifest says {wanted[0]}. {advice}")
        if list(self._backend.outputs) != [_as_spec(self.manifest.output)]:
            raise BackendError(
                f"{where} has the tensors {list(self._backend.outputs)}; the manifest says "
                f"{_as_spec(self.manifest.output)}. {advice}"
            )
        return layouts[wanted.index(found[0])]

    @property
    def execution(self) -> Execution:
        """Device, provider, threads and streams that the engine really has."""
        return self._backend.execution

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in index order."""
        return self._labels

    def run(self, pixels: npt.NDArray[np.uint8], clock: EngineClock | None = None) -> npt.NDArray[np.float32]:
        """Logits float32 (N, classes) for uint8 pixels (N, height, width, 3) at model size; copies are timed with `clock`.

        Raises:
            UsageError: another dtype or shape.
            BackendError: the engine failed.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != self._shape or len(pixels) == 0:
            raise UsageError(
                f"Found a tensor of {pixels.dtype} with shape {pixels.shape}. Expected uint8 with axes "
                f"[batch, height, width, channel] and shape (N, {', '.join(map(str, self._shape))})."
            )
        return self._infer(np.ascontiguousarray(pixels), clock)

    def _infer(self, pixels: npt.NDArray[np.uint8], clock: EngineClock | None = None) -> npt.NDArray[np.float32]:
        feeds = {self._input: in_layout(pixels, self._layout)}
        logits: npt.NDArray[np.float32] = self._backend.run(feeds, clock)[0]
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
        return [self.prediction(row, top_k, inference_ms=inference_ms) for row in logits]

    def predict(
        self, images: Sequence[ImageSource], top_k: int = 5, *, max_pixels: int = MAX_PIXELS
    ) -> list[Prediction]:
        """Label pictures one after the other. For many, `stream` is faster and keeps none of them in memory.

        Args:
            images: Paths, encoded bytes, Pillow images, or arrays uint8 [height, width, channel].
            top_k: How many labels each prediction lists, at least 1.
            max_pixels: Largest width x height that is decoded.

        Raises:
            ImageError: one of them is not a picture.
        """
        _refuse_single(images, "predict")
        return [self._predict_one(image, top_k, max_pixels) for image in images]

    def __call__(self, image: ImageSource, top_k: int = 5) -> Prediction:
        """Label one picture."""
        return self._predict_one(image, top_k, MAX_PIXELS)

    def stream(
        self,
        sources: Iterable[ImageSource | Picture],
        top_k: int = 5,
        *,
        workers: int | None = None,
        batch: int = 1,
        in_flight: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Generator[Result, None, None]:
        """Label any number of pictures in several threads; results one by one, in order.

        `sources` is read in the caller's thread, at most `in_flight` pictures ahead, and may be endless. A picture that
        cannot be read gives a result with an error; any other exception is raised in its place, after the results before
        it. Closing the iterator ends the threads.

        A classifier that was loaded with a stream per core labels the most; one that was loaded to answer a single picture
        soonest only decodes beside its inferences.

        Args:
            sources: What `predict` takes, or :class:`~edgewright.runtime.picture.Picture`, for example of
                :func:`~edgewright.runtime.sources.pictures`.
            top_k: How many labels each prediction lists, at least 1.
            workers: Threads; by default as many as the classifier was loaded with `streams`, or else one per core.
            batch: Pictures that a worker gives to the engine at once; for engines with a device of their own. On a CPU
                one at a time gives answers sooner, and `edgewright.benchmarks.peers.pipeline` tells what more would gain.
            in_flight: Pictures taken from `sources` and not yet yielded, at most; at least `batch`, by default four
                batches per worker.
            max_pixels: Largest width x height that is decoded.

        Raises:
            UsageError: a number that is too small.
        """
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; expected at least 1.")
        _refuse_single(sources, "stream")
        if workers is None:
            workers = self.execution.streams or available_cores()

        def label(part: Sequence[ImageSource | Picture]) -> list[Result]:
            return self._label_together(part, top_k, max_pixels)

        return in_order(label, sources, workers=workers, batch=batch, in_flight=in_flight)

    def _label_together(self, sources: Sequence[ImageSource | Picture], top_k: int, max_pixels: int) -> list[Result]:
        """Results of pictures that go into the engine as one batch; its time is divided among them."""
        prepared: list[tuple[npt.NDArray[np.uint8], float, float] | ImageError] = []
        for source in sources:
            try:
                opened = source.source() if isinstance(source, Picture) else source
                prepared.append(self.prepare(opened, max_pixels=max_pixels))
            except ImageError as error:
                prepared.append(error)
        good = [found for found in prepared if not isinstance(found, ImageError)]
        start = perf_counter_ns()
        logits = iter(self._infer(np.stack([pixels for pixels, _, _ in good])) if good else ())
        inference_ms = (perf_counter_ns() - start) / 1e6 / max(1, len(good))
        results = []
        for source, found in zip(sources, prepared, strict=True):
            if isinstance(found, ImageError):
                results.append(Result(source, None, found))
                continue
            _, decode_ms, preprocess_ms = found
            prediction = self.prediction(
                next(logits), top_k, decode_ms=decode_ms, preprocess_ms=preprocess_ms, inference_ms=inference_ms
            )
            results.append(Result(source, prediction, None))
        return results

    def _predict_one(self, source: ImageSource, top_k: int, max_pixels: int) -> Prediction:
        pixels, decode_ms, preprocess_ms = self.prepare(source, max_pixels=max_pixels, alone=True)
        prepared = perf_counter_ns()
        logits = self._infer(pixels[np.newaxis])
        inference_ms = (perf_counter_ns() - prepared) / 1e6
        return self.prediction(
            logits[0], top_k, decode_ms=decode_ms, preprocess_ms=preprocess_ms, inference_ms=inference_ms
        )

    def prediction(
        self,
        logits: npt.NDArray[np.float32],
        top_k: int = 5,
        *,
        decode_ms: float = 0.0,
        preprocess_ms: float = 0.0,
        inference_ms: float = 0.0,
    ) -> Prediction:
        """What one picture's logits, float32 (classes,), as `run` gives them, say."""
        start = perf_counter_ns()
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; expected at least 1.")
        best = tuple(LabelScore(self._labels[index], index, score) for index, score in top_scores(logits, top_k))
        known = best[0].score >= self.min_score
        if known and self.artefact.known_energy is not None:
            known = energy(float(logits[best[0].index]), best[0].score) >= self.artefact.known_energy
        timings = Timings(decode_ms, preprocess_ms, inference_ms, (perf_counter_ns() - start) / 1e6)
        return Prediction(best[0].label, best[0].index, best[0].score, known, best, timings)

    def warm_up(self, n: int = 3, batch: int = 1) -> None:
        """Do all that a first prediction would have to wait for: `n` runs on `batch` grey pictures, prepared like real ones.

        Raises:
            UsageError: fewer than one.
            BackendError: the engine failed.
        """
        if n < 1 or batch < 1:
            raise UsageError(f"{n} runs of {batch} pictures to warm up. Expected at least one of each.")
        side = self._spec.resize + 1  # or else there would be nothing to resize
        for _ in range(n):
            self._predict_one(Image.new("RGB", (side, side), (128, 128, 128)), 1, MAX_PIXELS)
        if batch > 1:
            grey = np.full((batch, *self._shape), 128, np.uint8)
            for _ in range(n):
                self.run(grey)

    def prepare(
        self, source: ImageSource, *, max_pixels: int = MAX_PIXELS, alone: bool = False
    ) -> tuple[npt.NDArray[np.uint8], float, float]:
        """Pixels uint8 (height, width, 3) at model size, and the milliseconds of decoding and of resizing.

        With `run` and `prediction` it makes up `predict`, for those who gather batches of their own.

        Args:
            source: A picture.
            max_pixels: Largest width x height that is decoded.
            alone: No other picture is being worked on, so a second core may take half of the resizing.

        Raises:
            ImageError: see :func:`edgewright.runtime.images.read_image`.
        """
        start = perf_counter_ns()
        image = read_image(source, max_pixels=max_pixels, least_side=self._spec.least_side)
        decoded = perf_counter_ns()
        pixels = resize_and_crop(image, self._spec, self._helper if alone else None)
        return pixels, (decoded - start) / 1e6, (perf_counter_ns() - decoded) / 1e6

    def close(self) -> None:
        """Release the engine: new runs are refused, those in flight are waited for. Calling it again does nothing."""
        self._backend.close()
        if self._helper is not None:
            self._helper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_single(images: object, method: str) -> None:
    if isinstance(images, (str, bytes, bytearray, os.PathLike, np.ndarray, Image.Image, Picture)):
        raise UsageError(f"{method}() takes a list of pictures; call the classifier itself for a single one.")


def load_request(
    bundle: Bundle, artefact: Artefact, settings: EngineSettings = DEFAULT_SETTINGS, precision: str | None = None
) -> LoadRequest:
    """What a backend is asked for, with the artefact's verified bytes; in its own precision unless told otherwise."""
    model, weights = bundle.artefact_bytes(artefact)
    return LoadRequest(model, weights, precision or artefact.executed, settings, artefact.name)


def _as_spec(declared: TensorRecord) -> TensorSpec:
    """What an engine says of a tensor that is as the manifest says."""
    return TensorSpec(declared.name, declared.dtype, tuple(None if axis == -1 else axis for axis in declared.shape))
