"""Everything that INT8 graphs of one model share: ranges collected once, methods compared once, layers ranked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from edgewright.export.quantization.emitter import emit, layers
from edgewright.export.quantization.pixels import Base, PixelForm, centre_pixels, grid_of
from edgewright.export.quantization.profiles import Profile
from edgewright.export.quantization.ranges import METHODS, Histogram, Method, Range, collect_histograms, draw_ranges
from edgewright.export.quantization.sensitivity import LayerDamage, divergence, rank_layers
from edgewright.export.simulate import simulate
from edgewright.runtime.console import notice
from edgewright.runtime.preprocess import Preprocess, in_layout

__all__ = ["Workshop"]

_COMPARED = 64
"""Calibration pictures on which methods are compared."""

_RANKED = 16
"""Calibration pictures on which layers are ranked; there are many layers, and the worst stand out."""

_EXACT = 0.01
"""Divergence of the logits, in nats, up to which the pixel may be the quantized tensor: a fraction of what INT8 costs."""


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
        self._bases: dict[PixelForm, Base] = {}
        self._ranges: dict[tuple[Method, bool], dict[str, Range]] = {}
        self._methods: dict[str, list[tuple[Method, float]]] = {}
        self.rankings: dict[str, list[LayerDamage]] = {}

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """Of every activation, collected at the first use."""
        return collect_histograms(self.model, self.pixels)

    @cached_property
    def _reference(self) -> npt.NDArray[np.float32]:
        """Logits of the float model for the compared pictures."""
        return simulate(self.model, self.pixels[:_COMPARED])

    def base(self, form: PixelForm) -> Base:
        """The float model with its pixels in this form; as it is, and that is said, where it would answer otherwise."""
        if form not in self._bases:
            centred = centre_pixels(self.model, self.spec, form)
            why_not = "it does not begin with one convolution that has a bias"
            if centred is not None:
                logits = simulate(centred, in_layout(self.pixels[:_COMPARED], form.layout))
                off = divergence(self._reference, logits)
                why_not = f"its answers would differ by {off:.3f} nats" if off > _EXACT else ""
            if centred is None or why_not:
                notice(f"the float graph normalises its pixels in front of the INT8 layers: {why_not}")
                self._bases[form] = Base(self.model, "NHWC", None)
            else:
                self._bases[form] = Base(centred, form.layout, grid_of(self.spec, symmetric=form.symmetric))
        return self._bases[form]

    def quantize(self, profile: Profile, method: Method, float_layers: Sequence[str] = ()) -> onnx.ModelProto:
        """The model as `profile` wants it; the named layers stay in float."""
        return emit(self.base(profile.pixels), profile, self._drawn(profile, method), float_layers=float_layers)

    def _drawn(self, profile: Profile, method: Method) -> dict[str, Range]:
        key = method, profile.symmetric
        if key not in self._ranges:
            self._ranges[key] = draw_ranges(self.histograms, method, symmetric=profile.symmetric)
        return self._ranges[key]

    def methods(self, profile: Profile) -> list[tuple[Method, float]]:
        """Methods with the divergence of their logits from the float model's, the best first."""
        if profile.name not in self._methods:
            pixels = self.pixels[:_COMPARED]
            found = [
                (method, divergence(self._reference, simulate(self.quantize(profile, method), pixels)))
                for method in self._allowed
            ]
            self._methods[profile.name] = sorted(found, key=lambda pair: pair[1])
        return self._methods[profile.name]

    def damage(self, profile: Profile) -> list[LayerDamage]:
        """Layers by the divergence that quantizing them alone causes, the worst first."""
        if profile.name not in self.rankings:
            # Pairs that can be taken away one by one; scales are those of the profile.
            apart = replace(profile, weight_pairs=True, quantize_bias=False)
            ranges = self._drawn(profile, self.methods(profile)[0][0])
            graph = emit(self.base(profile.pixels), apart, ranges, keep_activations=True)
            self.rankings[profile.name] = rank_layers(graph, layers(self.model), self.pixels[:_RANKED])
        return self.rankings[profile.name]
