"""What is known of each backbone without loading weights: the rows of `edgewright backbones`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.catalogue import (
    backbone_names,
    build_empty,
    imagenet_weights,
    licence_of,
    require_backbone,
)
from edgewright.train.backbones.layers import depth_of, read_layers
from edgewright.train.backbones.timm_source import TIMM, is_timm, timm_config, timm_names
from edgewright.train.backbones.weights import BUILTIN_BACKBONE, preprocess_for

__all__ = ["CURATED", "BackboneFacts", "by_cost", "choose_backbones", "facts_of"]

CURATED = (
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet34", "resnet50", "alexnet",
    "vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "googlenet", "inception_v3", "efficientnet_b0", "efficientnet_b1",
    "efficientnet_b2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1",
)  # fmt: skip
"""The convolutional networks that an edge device is likely to run, and those that textbooks start from."""

_MOST_OF_TIMM = 40
"""Rows that a filter on timm may give: each architecture is built to be measured."""

_BYTES_PER_MIB = 1024 * 1024


@dataclass(frozen=True)
class BackboneFacts:
    """One backbone.

    Attributes:
        parameters: Without the auxiliary classifiers that GoogLeNet and Inception v3 have in training.
        size_mb: Of the published weights' file, in 10^6 bytes; of the parameters and statistics in float32 for timm.
        gmacs: 10^9 multiply-accumulate operations for one image of `input_px`.
        depth: Layers with weights on the longest way through; None where the model cannot be traced.
        top1, top5: Published ImageNet-1K accuracy, percent, of the weights that `--weights imagenet` means and at
            their own input size; None where the library does not publish it.
        input_px: Side of the square input.
        licence: Of those weights; None where the library names none.
        weights: What `--weights` takes besides none and a path.
        published: Names of the published weights, the default last.
    """

    name: str
    parameters: int
    size_mb: float | None
    gmacs: float | None
    depth: int | None
    top1: float | None
    top5: float | None
    input_px: int
    licence: str | None
    weights: tuple[str, ...]
    published: tuple[str, ...]


def choose_backbones(everything: bool, text: str | None) -> list[str]:
    """Names in the curated list, or in the whole of torchvision or timm, that contain `text`.

    A text that starts with `timm:` searches timm. One that nothing curated contains searches the whole of torchvision.

    Raises:
        UsageError: no name contains it, or too many of timm's do.
        MissingExtraError: timm is asked for and not installed.
    """
    if text is not None and is_timm(text):
        found = [name for name in timm_names() if text.removeprefix(TIMM) in name.removeprefix(TIMM)]
        if len(found) > _MOST_OF_TIMM:
            raise UsageError(
                f"--filter {text} fits {len(found)} backbones. Expected at most {_MOST_OF_TIMM}: say more."
            )
    else:
        names = backbone_names()
        curated = [name for name in CURATED if name in names and (text or "") in name]
        found = curated if curated and not everything else [name for name in names if (text or "") in name]
    if not found:
        raise UsageError(
            f"No backbone contains '{text}'. See edgewright backbones --all, or --filter {TIMM}NAME for timm."
        )
    return found


def facts_of(name: str, imgsz: int | None = None) -> BackboneFacts:
    """Facts of one backbone; GMACs at `imgsz` where that is given, and None if it cannot compute such a size."""
    require_backbone(name)
    model = build_empty(name)
    own_px = preprocess_for(name, "imagenet", None, False).crop
    size_px = imgsz or own_px
    source = _of_timm(name, model) if is_timm(name) else _of_torchvision(name)
    gmacs = source.pop("gmacs", None)
    if gmacs is None or size_px != own_px:
        gmacs = _gmacs(model, size_px)
    return BackboneFacts(
        name=name,
        parameters=sum(value.numel() for value in model.parameters()),
        gmacs=gmacs,
        depth=depth_of(model),
        input_px=size_px,
        weights=("imagenet",) * bool(source["published"]) + ("builtin",) * (name == BUILTIN_BACKBONE),
        **source,
    )


def _of_torchvision(name: str) -> dict[str, Any]:
    import torchvision

    members = [weights.name for weights in torchvision.models.get_model_weights(name)]
    if not members:
        return {"published": (), "size_mb": None, "top1": None, "top5": None, "licence": None}
    weights = imagenet_weights(name)
    metrics = weights.meta["_metrics"]["ImageNet-1K"]
    return {
        "published": tuple(sorted(members, key=lambda member: (member == weights.name, member))),
        # torchvision counts in units of 1024 x 1024 bytes.
        "size_mb": weights.meta["_file_size"] * _BYTES_PER_MIB / 1e6,
        "gmacs": weights.meta["_ops"],
        "top1": metrics["acc@1"],
        "top5": metrics["acc@5"],
        "licence": licence_of(weights),
    }


def _of_timm(name: str, model: torch.nn.Module) -> dict[str, Any]:
    config = timm_config(name)
    return {
        "published": (config.hf_hub_id,) if config.hf_hub_id else (),
        "size_mb": sum(value.numel() * value.element_size() for value in model.state_dict().values()) / 1e6,
        "top1": None,
        "top5": None,
        "licence": config.license,
    }


def _gmacs(model: torch.nn.Module, size_px: int) -> float | None:
    try:
        layers = read_layers(model, torch.zeros(1, 3, size_px, size_px, device="meta"))
    except UsageError:
        return None
    return sum(layer.macs for layer in layers) / 1e9


def by_cost(facts: Iterable[BackboneFacts]) -> list[BackboneFacts]:
    """Cheapest first; those that cannot compute this size last."""
    return sorted(facts, key=lambda one: (one.gmacs is None, one.gmacs or 0.0, one.name))
