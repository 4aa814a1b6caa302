"""Which parts of a picture speak for a label: the bundle's own maps, drawn over what the model sees. No torch needed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Self

from edgewright.runtime.backends import EngineSettings, LoadRequest, load_backend
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write
from edgewright.runtime.images import ImageSource, read_image
from edgewright.runtime.picture import Picture
from edgewright.runtime.pipeline import Result
from edgewright.runtime.preprocess import resize_and_crop

__all__ = ["Explainer", "Explanation", "MapsFolder", "overlay"]

_YELLOW, _RED = np.array([255.0, 220.0, 0.0]), np.array([220.0, 0.0, 0.0])
_OPAQUE = 0.7
"""How much of the picture the strongest place hides."""


@dataclass(frozen=True)
class Explanation:
    """What each place adds to a label.

    Attributes:
        label: The label.
        index: Its index.
        added: What each place adds to the label's logit, beyond what it adds to all labels on average; float32, axes
            [row, column]. Negative where it speaks against the label.
        seen: The picture as the model sees it.
    """

    label: str
    index: int
    added: npt.NDArray[np.float32]
    seen: Image.Image


class Explainer:
    """The bundle's graph of maps, loaded into ONNX Runtime; a context manager."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        manifest = bundle.manifest
        if manifest.explain is None:
            raise UsageError(
                f"'{bundle.path}' has no maps to explain labels with. Export it again with --explain; networks that do "
                "not judge by the average of a feature map have none."
            )
        settings = EngineSettings(threads=threads)
        request = LoadRequest(bundle.read(manifest.explain), None, "fp32", settings, manifest.explain)
        self._engine = load_backend("onnxruntime", request)
        self._manifest = manifest

    def __call__(self, image: ImageSource, index: int | None = None) -> Explanation:
        """Explain the label with this index, by default the one that the float network gives the picture.

        Raises:
            ImageError: no picture.
            UsageError: no such label.
        """
        spec, labels = self._manifest.preprocess, self._manifest.labels
        if index is not None and not 0 <= index < len(labels):
            raise UsageError(f"There is no label {index}; expected 0 to {len(labels) - 1}.")
        pixels = resize_and_crop(read_image(image, least_side=spec.least_side), spec)
        logits, maps = self._engine.run({self._manifest.input.name: pixels[np.newaxis]})
        chosen = int(logits[0].argmax()) if index is None else index
        return Explanation(labels[chosen], chosen, maps[0, chosen], Image.fromarray(pixels))

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MapsFolder:
    """Overlays as PNG files, one for each result: `000001-NAME.png` and so on."""

    def __init__(self, folder: Path, explainer: Explainer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._explainer = folder, explainer

    def write(self, result: Result, number: int) -> Path:
        """Write the overlay of `result`, the one with this number, for the label that it has.

        Raises:
            ImageError: the picture cannot be read any more.
        """
        assert isinstance(result.source, Picture)
        assert result.prediction is not None
        found = self._explainer(result.source.source(), result.prediction.index)
        path = self._folder / f"{number:06d}-{Path(result.source.name).stem}.png"
        buffer = io.BytesIO()
        overlay(found).save(buffer, "PNG")
        atomic_write(path, buffer.getvalue())
        return path


def overlay(explanation: Explanation) -> Image.Image:
    """The picture, yellow to red where more speaks for the label than in the average place, and elsewhere as it is."""
    size = explanation.seen.size
    strength = np.maximum(explanation.added - explanation.added.mean(), 0)
    strength = strength / max(float(strength.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    heat = np.clip(smooth, 0, 1)[..., np.newaxis]
    color = (1 - heat) * _YELLOW + heat * _RED
    mixed = (1 - _OPAQUE * heat) * np.asarray(explanation.seen) + _OPAQUE * heat * color
    return Image.fromarray(mixed.round().astype(np.uint8))
