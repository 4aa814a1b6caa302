"""Models that are served: a bundle's artefact in several engines behind a micro-batcher, proven before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import UsageError
from edgewright.runtime.golden import require_golden
from edgewright.runtime.loading import load
from edgewright.runtime.manifest import Manifest
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.server.batcher import BatchRules, MicroBatcher
from edgewright.runtime.server.settings import ServeSettings

__all__ = ["Answer", "Picture", "ServedModel", "load_model"]

Picture: TypeAlias = "bytes | npt.NDArray[np.uint8]"
"""What a request holds: an encoded picture, or uint8 pixels [height, width, channel] at model size."""

_SHARED_SESSION = ("onnxruntime",)
"""Engines of which one takes calls from several threads side by side, each computed in its caller's thread."""


@dataclass(frozen=True, slots=True)
class _Pixels:
    pixels: npt.NDArray[np.uint8]
    decode_ms: float
    preprocess_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture's logits, float32 (classes,), and where its time went; `inference_ms` is its share of a batch's."""

    logits: npt.NDArray[np.float32]
    decode_ms: float
    preprocess_ms: float
    inference_ms: float


class ServedModel:
    """A bundle in service. `batcher` takes pictures and gives answers; `close` when it is no longer needed."""

    def __init__(
        self,
        path: Path,
        classifiers: Sequence[Classifier],
        settings: ServeSettings,
        *,
        workers: int,
        rules: BatchRules,
        helpers: int,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.path = path
        self.classifier = classifiers[0]
        self.manifest: Manifest = self.classifier.manifest
        self.workers = workers
        self._classifiers = classifiers
        self._max_pixels = settings.max_pixels
        self.batcher: MicroBatcher[Picture, _Pixels, Answer] = MicroBatcher(
            self._prepare,
            [_runner(classifiers[number % len(classifiers)]) for number in range(workers)],
            rules,
            helpers=helpers,
            on_batch=on_batch,
        )

    def _prepare(self, picture: Picture) -> _Pixels:
        if isinstance(picture, np.ndarray):
            return _Pixels(picture, 0.0, 0.0)
        return _Pixels(*self.classifier.prepare(picture, max_pixels=self._max_pixels))

    def ready(self) -> bool:
        """Whether every engine answers."""
        return self.batcher.hung() == 0

    def close(self, timeout_s: float) -> bool:
        """Finish what was admitted, then release the engines; False if something was not finished in time."""
        finished = self.batcher.close(timeout_s)
        if finished:  # an engine that still computes must not be pulled away
            for classifier in self._classifiers:
                classifier.close()
        return finished


def _runner(classifier: Classifier) -> Callable[[Sequence[_Pixels]], list[Answer]]:
    def run(batch: Sequence[_Pixels]) -> list[Answer]:
        start = perf_counter_ns()
        only = batch[0].pixels[np.newaxis] if len(batch) == 1 else np.stack([item.pixels for item in batch])
        logits = classifier.run(only)
        inference_ms = (perf_counter_ns() - start) / 1e6 / len(batch)
        return [
            Answer(row, item.decode_ms, item.preprocess_ms, inference_ms)
            for row, item in zip(logits, batch, strict=True)
        ]

    return run


def load_model(
    path: Path | str, settings: ServeSettings, on_batch: Callable[[str, int], None] | None = None
) -> ServedModel:
    """Open a bundle, load its engines, prove and warm them, start their threads.

    As many engines as cores with one thread each is what serves most pictures a second: nothing is divided, so nothing
    waits for another thread's part. A GPU gets one engine, and the cores decode for it.

    Raises:
        BundleError: the bundle is missing, incomplete or altered.
        UsageError: its name cannot be in a URL.
        BackendError: the engine refused the artefact, or failed.
        GateError: the engine does not compute what was trained.
    """
    first = load(
        path, settings.artefact, settings.backend, settings.threads, settings.device, min_score=settings.min_score
    )
    bundle, classifiers = first.bundle, [first]
    try:
        if "/" in bundle.manifest.name:
            raise UsageError(
                f"'{path}' is called '{bundle.manifest.name}'. A model's name is part of its URL and has no slash; export "
                "it again under another name."
            )
        on_accelerator = first.execution.device != "cpu"
        cores = available_cores()
        workers = settings.workers or (1 if on_accelerator else max(1, cores // settings.threads))
        if first.backend_name not in _SHARED_SESSION:
            for _ in range(1, workers):
                engine = EngineSettings(settings.device, settings.threads)
                classifiers.append(Classifier(bundle, first.artefact, backend=first.backend_name, settings=engine))
        rules = settings.rules(workers, on_accelerator=on_accelerator)
        for classifier in classifiers:
            require_golden(bundle, classifier)
            # A batch of each size, so that no request waits for what the first one costs.
            for size in range(1, rules.max_batch + 1):
                classifier.warm_up(1, size)
        first(bundle.read(bundle.manifest.golden[0].image))  # loads the decoder
        name = bundle.manifest.name
        return ServedModel(
            Path(os.path.abspath(path)),  # noqa: PTH100  # a link is followed anew at each reload
            classifiers,
            settings,
            workers=workers,
            rules=rules,
            helpers=cores if on_accelerator else 0,
            on_batch=None if on_batch is None else lambda size: on_batch(name, size),
        )
    except BaseException:
        for classifier in classifiers:
            classifier.close()
        raise
