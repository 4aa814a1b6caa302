"""What is measured: an artefact in its engine, with so many threads and so many pictures at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import perf_counter_ns

import numpy as np

from edgewright.runtime.backends import EngineClock, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import BundleError
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.parallel import available_cores

__all__ = [
    "Configuration",
    "Subject",
    "configurations",
    "golden_pictures",
    "has_threads",
    "open_subjects",
    "usual_threads",
]


@dataclass(frozen=True)
class Configuration:
    """One way to run the model.

    Attributes:
        artefact: Which form of it.
        threads: Of one inference; None where the device has none to set.
        batch: Pictures in one inference.
        main: Whether it answers a single picture as `edgewright.load` does by default: most time goes to these.
    """

    artefact: Artefact
    threads: int | None
    batch: int
    main: bool


def configurations(
    artefacts: Sequence[Artefact], threads: Sequence[int], batches: Sequence[int], device: str | None = None
) -> list[Configuration]:
    """Every artefact with every number of threads and pictures.

    Args:
        artefacts: Of one bundle.
        threads: Numbers of threads; they mean something on a CPU alone.
        batches: Numbers of pictures.
        device: As it will be asked of the engine; None is the CPU, or with TensorRT its GPU.
    """
    found = []
    for artefact in artefacts:
        for count in sorted(set(threads)) if has_threads(artefact, device) else (None,):
            for batch in sorted(set(batches)):
                is_main = batch == min(batches) and count in (None, max(threads))
                found.append(Configuration(artefact, count, batch, is_main))
    return found


def has_threads(artefact: Artefact, device: str | None) -> bool:
    """Whether threads can be set: on the CPU, where None is it, but for TensorRT."""
    return artefact.backend != "tensorrt" and EngineSettings(device).device_or().kind == "cpu"


def golden_pictures(bundle: Bundle) -> list[bytes]:
    """The bundle's own pictures, encoded.

    Raises:
        BundleError: it has none.
    """
    pictures = [bundle.read(vector.image) for vector in bundle.manifest.golden]
    if not pictures:
        raise BundleError(f"'{bundle.path}' has no golden pictures to measure with. Export it again with --golden 6.")
    return pictures


class Subject:
    """A configuration, loaded, and the pictures that it is given in turn."""

    def __init__(self, configuration: Configuration, classifier: Classifier, pictures: Sequence[bytes]) -> None:
        self.configuration = configuration
        self.classifier = classifier
        self._pictures = pictures
        self._next = 0

    def next_request(self) -> list[bytes]:
        """The pictures of the next request."""
        first, self._next = self._next, (self._next + self.configuration.batch) % len(self._pictures)
        return [self._pictures[(first + index) % len(self._pictures)] for index in range(self.configuration.batch)]

    def answer(self, request: Sequence[bytes]) -> tuple[float, ...]:
        """Label a request; milliseconds in all, and of each of :data:`~edgewright.benchmarks.reports.STAGES`."""
        classifier, clock = self.classifier, EngineClock()
        begun = perf_counter_ns()
        prepared = [classifier.prepare(picture, alone=True) for picture in request]
        gathering = perf_counter_ns()
        # As the classifier does it: a single picture is not copied.
        pixels = prepared[0][0][np.newaxis] if len(prepared) == 1 else np.stack([image for image, _, _ in prepared])
        gathered = perf_counter_ns()
        logits = classifier.run(pixels, clock)
        computed = perf_counter_ns()
        for row in logits:
            classifier.prediction(row)
        done = perf_counter_ns()
        engine_ns = computed - gathered - clock.copy_in_ns - clock.copy_out_ns
        return (
            (done - begun) / 1e6,
            sum([decode_ms for _, decode_ms, _ in prepared]),
            sum([preprocess_ms for _, _, preprocess_ms in prepared]),
            (gathered - gathering + clock.copy_in_ns) / 1e6,
            engine_ns / 1e6,
            clock.copy_out_ns / 1e6,
            (done - computed) / 1e6,
        )


@contextmanager
def open_subjects(bundle: Bundle, wanted: Sequence[Configuration], settings: EngineSettings) -> Iterator[list[Subject]]:
    """Load what is wanted; configurations that differ only in the batch share an engine. Closed at the end.

    Raises:
        BundleError: no golden pictures.
        BackendError: an engine refused an artefact.
    """
    pictures = golden_pictures(bundle)
    with ExitStack() as stack:
        loaded: dict[tuple[str, int | None], Classifier] = {}
        subjects = []
        for each in wanted:
            key = (each.artefact.name, each.threads)
            if key not in loaded:
                own = replace(settings, threads=each.threads)
                loaded[key] = stack.enter_context(Classifier(bundle, each.artefact, settings=own))
            subjects.append(Subject(each, loaded[key], pictures))
        yield subjects


def usual_threads() -> tuple[int, ...]:
    """One, and all cores."""
    return tuple(sorted({1, available_cores()}))
