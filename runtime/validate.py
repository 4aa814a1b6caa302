"""Accuracy of a bundle's artefacts on a folder of labelled pictures, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from edgewright.runtime.backends import DEFAULT_SETTINGS, EngineSettings
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.console import track
from edgewright.runtime.errors import DataError, ImageError
from edgewright.runtime.folders import class_folders, pictures_in, split_folder
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.parallel import available_cores, bounded_map
from edgewright.runtime.preprocess import preprocess

__all__ = ["ArtefactAccuracy", "Validation", "labelled_pictures", "validate"]

_BATCH = 16


@dataclass(frozen=True)
class ArtefactAccuracy:
    """`seconds` is the engine's time alone."""

    name: str
    images: int
    top1: float
    top5: float
    seconds: float


@dataclass(frozen=True)
class Validation:
    """Accuracy of each artefact, and the pictures that could not be read, with the reason."""

    artefacts: tuple[ArtefactAccuracy, ...]
    unreadable: tuple[tuple[str, str], ...]


def labelled_pictures(root: Path, labels: Sequence[str], split: str | None) -> list[tuple[Path, int]]:
    """Pictures of `root` with the index of their class in `labels`, matched by the name of their folder.

    `root/<split>/<class>/*` if `split` is given; else the test split where there is one, then the validation split,
    then `root/<class>/*`.

    Raises:
        DataError: no such folder or split, no pictures, or a folder that is no class of the bundle.
    """
    if not root.is_dir():
        raise DataError(f"No folder at '{root}'. Expected one folder per class, or test/ with one folder per class.")
    if split is not None:
        folder = split_folder(root, split)
        if folder is None:
            raise DataError(f"'{root}' has no {split} split. Expected '{root / split}' with one folder per class.")
    else:
        folder = split_folder(root, "test") or split_folder(root, "val") or root
    found = [
        (path, labels.index(name))
        for name, directory in class_folders(folder, labels).items()
        for path in pictures_in(directory)
    ]
    if not found:
        raise DataError(f"No pictures in '{folder}'. Expected one folder per class, with pictures.")
    return found


def validate(
    bundle: Bundle,
    artefacts: Sequence[Artefact],
    pictures: Sequence[tuple[Path, int]],
    settings: EngineSettings = DEFAULT_SETTINGS,
) -> Validation:
    """Evaluate `artefacts` on the same tensors; each picture is decoded once.

    Raises:
        DataError: not one picture can be read.
        BackendError: an engine failed.
    """
    spec = bundle.manifest.preprocess

    def prepare(item: tuple[Path, int]) -> tuple[npt.NDArray[np.uint8] | str, tuple[Path, int]]:
        try:
            return preprocess(item[0], spec), item
        except ImageError as error:
            return str(error), item

    classifiers = {artefact.name: Classifier(bundle, artefact, settings=settings) for artefact in artefacts}
    hits = {name: np.zeros(2, dtype=np.int64) for name in classifiers}
    seconds = dict.fromkeys(classifiers, 0.0)
    unreadable: list[tuple[str, str]] = []
    images = 0
    try:
        prepared = track(
            bounded_map(prepare, pictures, threads=available_cores(), in_flight=2 * _BATCH), "evaluating", len(pictures)
        )
        while part := list(islice(prepared, _BATCH)):
            unreadable += [(str(item[0]), found) for found, item in part if isinstance(found, str)]
            good = [(found, item[1]) for found, item in part if not isinstance(found, str)]
            if not good:
                continue
            pixels = np.stack([found for found, _ in good])
            truth = np.asarray([label for _, label in good])[:, None]
            images += len(good)
            for name, classifier in classifiers.items():
                start = perf_counter()
                logits = classifier.run(pixels)
                seconds[name] += perf_counter() - start
                best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
                hits[name] += ((best[:, :1] == truth).sum(), (best == truth).sum())
    finally:
        for classifier in classifiers.values():
            classifier.close()
    if images == 0:
        raise DataError(f"None of the {len(pictures)} pictures can be read; the first: {unreadable[0][1]}")
    rows = tuple(
        ArtefactAccuracy(name, images, int(hits[name][0]) / images, int(hits[name][1]) / images, seconds[name])
        for name in classifiers
    )
    return Validation(rows, tuple(unreadable))
