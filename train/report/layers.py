"""What the network looks for: its first filters, and what its stages respond to on a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import fx, nn

from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.backbones.surgery import StagePlan, plan_stages
from edgewright.train.data.samples import Sample
from edgewright.train.report.style import drawing, photograph_grid

__all__ = ["Response", "first_filters", "plot_filters", "plot_responses", "responses"]

_MOST_FILTERS = 64
_FILTER_COLUMNS = 16
_SHOWN_PX = 160
_SMALLEST_MAP = 4
"""Width of the smallest map that still says where in a picture something is."""

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


def first_filters(network: nn.Module) -> Map | None:
    """Weights of the first convolution that sees colours, axes [filter, height, width, RGB], or None if there is none.

    Each filter is stretched to 0..1 by its own smallest and largest weight.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 3:
            weights = module.weight.detach().float().permute(0, 2, 3, 1).numpy()
            low, high = weights.min(axis=(1, 2, 3), keepdims=True), weights.max(axis=(1, 2, 3), keepdims=True)
            return np.asarray((weights - low) / np.maximum(high - low, 1e-12), dtype=np.float32)
    return None


def plot_filters(filters: Map, path: Path) -> None:
    """At most 64 filters, side by side."""
    shown = filters[:_MOST_FILTERS]
    count, height, width, _ = shown.shape
    columns = min(_FILTER_COLUMNS, count)
    rows = math.ceil(count / columns)
    scale = max(1, round(44 / height))
    tile_height, tile_width = height * scale + 4, width * scale + 4
    sheet = np.ones((rows * tile_height, columns * tile_width, 3), dtype=np.float32)
    for number, weights in enumerate(shown):
        top, left = (number // columns) * tile_height + 2, (number % columns) * tile_width + 2
        enlarged = np.kron(weights, np.ones((scale, scale, 1), dtype=np.float32))
        sheet[top : top + height * scale, left : left + width * scale] = enlarged
    with drawing(path, sheet.shape[1] / 100 + 0.1, sheet.shape[0] / 100 + 0.35) as figure:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(sheet, interpolation="nearest")
        axes.set_title(f"{count} of {len(filters)} filters, {height} x {width}")


@dataclass(frozen=True)
class Response:
    """What one picture sets off.

    Attributes:
        pixels: The picture as the network sees it, (height, width, RGB).
        title: What it is.
        stages: (name, maps [channel, height, width] of the strongest channels), early to late.
        evidence: How much each place speaks for the predicted class, (height, width), 0..1; see :func:`responses`.
        predicted: Index of that class.
    """

    pixels: Pixels
    title: str
    stages: tuple[tuple[str, Map], ...]
    evidence: Map
    predicted: int


def responses(
    network: nn.Module, samples: Sequence[tuple[str, Sample]], spec: Preprocess, channels: int = 4
) -> tuple[Response, ...]:
    """What (title, sample) pairs set off in an early, a middle and a late stage, and where the evidence lies.

    The evidence is Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017) at the last stage whose map is at least 4 x 4: its channels, each weighted with the mean
    of the predicted logit's gradient, added up, and only what speaks for the class kept.

    Returns:
        Nothing for a network without feature maps (a transformer of tokens) or one that cannot be cut into stages.
    """
    example = torch.zeros(1, spec.crop, spec.crop, 3, dtype=torch.uint8)
    plan = plan_stages(network, example)
    spatial = _last_maps(plan)
    # One alone is the patches of a transformer, before it has looked at anything.
    if len(spatial) < 2:
        return ()
    chosen = [spatial[place] for place in sorted({0, (len(spatial) - 1) // 2, len(spatial) - 1})]
    return tuple(_respond(plan, chosen, title, preprocess(sample.source, spec), channels) for title, sample in samples)


def _last_maps(plan: StagePlan) -> list[tuple[int, str]]:
    """(stage, counted from 1; node) of the last map of each stage, without the stages that have none to look at."""
    stage, last = 1, {}
    for node in plan.graph.graph.nodes:
        # The last stage ends after the pooling, so its map is not where it is cut.
        shape = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))[1:]
        if len(shape) == 3 and node.op != "placeholder":
            _, height, width = _channels_first(shape)
            if height == width >= _SMALLEST_MAP:
                last[stage] = node.name
        if node.name == plan.cuts[-1]:
            break
        stage += node.name in plan.cuts
    return list(last.items())


def _respond(plan: StagePlan, chosen: Sequence[tuple[int, str]], title: str, pixels: Pixels, channels: int) -> Response:
    recorder = _Recorder(plan.graph, {cut for _, cut in chosen})
    with torch.enable_grad():
        logits = recorder.run(torch.from_numpy(np.array(pixels))[None])
        predicted = int(logits[0].argmax())
        last = recorder.values[chosen[-1][1]]
        (gradient,) = torch.autograd.grad(logits[0, predicted], last)
    maps = {cut: _as_channels_first(recorder.values[cut].detach()[0]) for _, cut in chosen}
    stages = []
    for number, cut in chosen:
        strongest = maps[cut].mean(dim=(1, 2)).topk(min(channels, len(maps[cut]))).indices
        stages.append((f"stage {number} of {len(plan.cuts)}", maps[cut][strongest].float().numpy()))
    weights = _as_channels_first(gradient[0]).mean(dim=(1, 2))
    evidence = torch.einsum("c,chw->hw", weights, maps[chosen[-1][1]]).clamp(min=0)
    # All zero where nothing speaks for the class.
    evidence = evidence / evidence.max() if evidence.max() > 0 else evidence
    return Response(pixels, title, tuple(stages), evidence.float().numpy(), predicted)


class _Recorder(fx.Interpreter):
    """Runs a traced network and keeps what some of its nodes give."""

    def __init__(self, graph: fx.GraphModule, names: set[str]) -> None:
        super().__init__(graph)
        self.values: dict[str, torch.Tensor] = {}
        self._names = names

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names:
            # Cut off, so that gradients are computed from here on only; a copy goes on, because ReLU may work in place.
            self.values[n.name] = value.detach().requires_grad_()
            value = self.values[n.name].clone()
        return value


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(channels, height, width) of a square map that has its channels first or (ConvNeXt, Swin) last."""
    first, second, third = shape
    return (third, first, second) if first == second != third else shape


def _as_channels_first(value: torch.Tensor) -> torch.Tensor:
    first, second, third = value.shape
    return value.permute(2, 0, 1) if first == second != third else value


def plot_responses(found: Sequence[Response], names: Sequence[str], path: Path) -> None:
    """A row per picture: the picture, four channels of each stage, and the evidence laid over the picture.

    Args:
        found: Of :func:`responses`, at least one.
        names: Of the classes, as they can be drawn.
        path: The PNG.
    """
    columns = 2 + len(found[0].stages)
    with drawing(path, columns * 1.85, len(found) * 2.15, photographs=True) as figure:
        grid = photograph_grid(figure, len(found), columns, 1)
        for row, response in zip(grid, found, strict=True):
            picture = _enlarged(response.pixels)
            row[0].imshow(picture)
            row[0].set_title(response.title)
            for axes, (name, maps) in zip(row[1:-1], response.stages, strict=True):
                axes.imshow(_mosaic(maps), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
                side = maps.shape[1]
                axes.set_title(f"{name} ({side} x {side})")
            row[-1].imshow(_overlaid(picture, response.evidence))
            row[-1].set_title(f"evidence for {names[response.predicted]}")


def _enlarged(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    how = Image.Resampling.NEAREST if image.width < _SHOWN_PX else Image.Resampling.BILINEAR
    return np.asarray(image.resize((_SHOWN_PX, _SHOWN_PX), how))


def _mosaic(maps: Map) -> Map:
    """Up to four maps, each stretched to 0..1, two by two with a gap of NaN, (160, 160)."""
    side, gap = _SHOWN_PX // 2 - 1, 2
    sheet = np.full((_SHOWN_PX, _SHOWN_PX), np.nan, dtype=np.float32)
    for number, values in enumerate(maps[:4]):
        low, high = values.min(), values.max()
        scaled = Image.fromarray((values - low) / max(high - low, 1e-12)).resize((side, side), Image.Resampling.NEAREST)
        top, left = (number // 2) * (side + gap), (number % 2) * (side + gap)
        sheet[top : top + side, left : left + side] = np.asarray(scaled)
    return sheet


def _overlaid(picture: Pixels, evidence: Map) -> npt.NDArray[np.float32]:
    import matplotlib as mpl

    smooth = np.asarray(Image.fromarray(evidence).resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = mpl.colormaps["inferno"](smooth)[..., :3]
    grey = picture.mean(axis=2, keepdims=True) / 255
    strength = 0.25 + 0.5 * smooth[..., None]
    return np.asarray((1 - strength) * grey + strength * colours, dtype=np.float32)
