"""Everything that INT8 graphs of one model share: ranges collected once, methods compared once, layers ranked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.quantization.emitter import emit, layers
from edgewright.export.quantization.pixels import centre_pixels
from edgewright.export.quantization.profiles import Profile
from edgewright.export.quantization.ranges import METHODS, Histogram, Method, collect_histograms, draw_ranges
from edgewright.export.quantization.sensitivity import LayerDamage, divergence, rank_layers
from edgewright.export.simulate import SimulatedBackend
from edgewright.runtime.preprocess import Preprocess

__all__ = ["Workshop"]

_COMPARED = 64
"""Calibration pictures on which methods are compared."""

_RANKED = 16
"""Calibration pictures on which layers are ranked; there are many layers, and the worst stand out."""

_BATCH = 16


class Workshop:
    """Makes INT8 graphs of a float model.

    Args:
        model: As :func:`edgewright.export.onnx_graph.to_onnx` makes it.
        spec: Its preprocessing.
        pixels: Of the calibration pictures, uint8 (N, height, width, 3).
        methods: Ways to draw ranges that may be used.

    Attributes:
        rankings: What :meth:`damage` found so far, by profile.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        spec: Preprocess,
        pixels: npt.NDArray[np.uint8],
        methods: Sequence[Method] = METHODS,
    ) -> None:
        self.model, self.spec, self.pixels = model, spec, pixels
        self._allowed = methods
        self._methods: dict[str, list[tuple[Method, float]]] = {}
        self.rankings: dict[str, list[LayerDamage]] = {}

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """Of every activation, collected at the first use."""
        return collect_histograms(self.model, self.pixels)

    def quantize(
        self, profile: Profile, method: Method, float_layers: Sequence[str] = (), *, centred: bool = True
    ) -> onnx.ModelProto:
        """The model as `profile` wants it; the named layers stay in float."""
        ranges = draw_ranges(self.histograms, method, symmetric=profile.symmetric)
        return emit(self.model, self.spec, profile, ranges, float_layers=float_layers, centred=centred)

    def float_graph(self, profile: Profile) -> onnx.ModelProto:
        """The float model with its pixels as the profile's graphs take them, where that can be."""
        return centre_pixels(self.model, self.spec, profile.pixels) or self.model

    def methods(self, profile: Profile) -> list[tuple[Method, float]]:
        """Methods with the divergence of their logits from the float model's, the best first."""
        if profile.name not in self._methods:
            pixels = self.pixels[:_COMPARED]
            reference = _logits(self.model, pixels)
            found = [
                (method, divergence(reference, _logits(self.quantize(profile, method), pixels)))
                for method in self._allowed
            ]
            self._methods[profile.name] = sorted(found, key=lambda pair: pair[1])
        return self._methods[profile.name]

    def damage(self, profile: Profile) -> list[LayerDamage]:
        """Layers by the divergence that quantizing them alone causes, the worst first."""
        if profile.name not in self.rankings:
            # Pairs that can be taken away one by one; scales are those of the profile.
            apart = replace(profile, weight_pairs=True, quantize_bias=False)
            method = self.methods(profile)[0][0]
            ranges = draw_ranges(self.histograms, method, symmetric=profile.symmetric)
            graph = emit(self.model, self.spec, apart, ranges, keep_activations=True)
            pixels = self.pixels[:_RANKED]
            self.rankings[profile.name] = rank_layers(graph, layers(self.model), pixels, profile.pixels.layout)
        return self.rankings[profile.name]


def _logits(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    backend = SimulatedBackend(model.SerializeToString(), "a graph on trial")
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    return np.concatenate([backend.run({INPUT_NAME: part})[0] for part in parts])
