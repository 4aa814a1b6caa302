"""The bundles of a page: every artefact that runs here, loaded when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.classifier import Classifier, Prediction
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.explain import Explainer, overlay
from edgewright.runtime.images import ImageSource
from edgewright.runtime.loading import load

__all__ = ["MAX_PIXELS", "DemoModel", "open_models"]

MAX_PIXELS = 32_000_000
"""Largest picture that a stranger may have decoded here."""


class DemoModel:
    """One bundle. Its default artefact is loaded at once, others when they are first asked for; safe to share."""

    def __init__(self, path: Path, min_score: float = 0.0) -> None:
        self._default = load(path, min_score=min_score)
        self.bundle: Bundle = self._default.bundle
        self.name = self.bundle.manifest.name
        self.artefacts = [artefact.name for artefact in runnable_artefacts(self.bundle, None)]
        self._min_score = min_score
        self._loaded: dict[str, Classifier] = {self._default.artefact.name: self._default}
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()
        self._explainer = None if self.bundle.manifest.explain is None else Explainer(self.bundle)
        self._default.warm_up()

    @property
    def default(self) -> str:
        """Name of the artefact that `edgewright.load` takes here."""
        return self._default.artefact.name

    @property
    def has_maps(self) -> bool:
        """Whether the bundle can show what speaks for a label."""
        return self._explainer is not None

    def classifier(self, name: str | None = None) -> Classifier:
        """The artefact called `name`, or the default one.

        Raises:
            BackendError: the engine refuses it on this machine; always with the same words.
        """
        wanted = name or self.default
        with self._lock:
            if wanted in self._refused:
                raise BackendError(self._refused[wanted])
            if wanted not in self._loaded:
                try:
                    found = load(self.bundle.path, artefact=wanted, min_score=self._min_score)
                    found.warm_up()
                except BackendError as error:
                    self._refused[wanted] = str(error)
                    raise
                self._loaded[wanted] = found
            return self._loaded[wanted]

    def label(self, source: ImageSource, name: str | None = None, top_k: int = 5) -> Prediction:
        """What an artefact says of a picture.

        Raises:
            ImageError: no picture, or too large a one.
        """
        return self.classifier(name).predict([source], top_k=top_k, max_pixels=MAX_PIXELS)[0]

    def map_of(self, source: ImageSource, index: int) -> Image.Image | None:
        """The picture with what speaks for the label, or None if the bundle has no maps."""
        return None if self._explainer is None else overlay(self._explainer(source, index))

    def close(self) -> None:
        """Release every engine."""
        for classifier in self._loaded.values():
            classifier.close()
        if self._explainer is not None:
            self._explainer.close()


def open_models(paths: Sequence[Path], min_score: float = 0.0) -> dict[str, DemoModel]:
    """The bundles, by name.

    Raises:
        EdgewrightError: one cannot be opened or run, or two have the same name.
    """
    models: dict[str, DemoModel] = {}
    try:
        for path in paths:
            model = DemoModel(path, min_score)
            if model.name in models:
                model.close()
                raise UsageError(
                    f"Two bundles are called '{model.name}'. Give one at a time, or export one under another name."
                )
            models[model.name] = model
    except BaseException:
        for model in models.values():
            model.close()
        raise
    return models
