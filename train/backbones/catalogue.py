"""Backbones by name: torchvision's classification models, without a table of our own to keep up with."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from edgewright.runtime.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["IMAGENET_CLASSES", "backbone_names", "build_backbone", "imagenet_weights"]

IMAGENET_CLASSES = 1000

_GOOGLE_NETS = ("googlenet", "inception_v3")
"""Their torchvision builders take extra switches: auxiliary classifiers, and the input scaling of Google's weights."""


def backbone_names() -> list[str]:
    """Every classification model of the installed torchvision."""
    try:
        import torchvision
    except ImportError as error:
        raise MissingExtraError("torchvision", "train") from error
    return list(torchvision.models.list_models(module=torchvision.models))


def require_backbone(name: str) -> None:
    """Raise UsageError, with near names, unless `name` is in the catalogue."""
    names = backbone_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or [
            "mobilenet_v2",
            "mobilenet_v3_small",
            "resnet18",
        ]
        raise UsageError(f"Unknown backbone '{name}'. Near names: {', '.join(near)}.")


def build_backbone(name: str, classes: int = IMAGENET_CLASSES, *, google_input: bool = False) -> nn.Module:
    """An untrained model of torchvision that returns logits, shape (N, classes).

    Args:
        name: A name of :func:`backbone_names`.
        classes: Number of outputs.
        google_input: For GoogLeNet and Inception v3: rescale the input as their published weights expect.

    Raises:
        UsageError: unknown name.
    """
    import torchvision

    require_backbone(name)
    options: dict[str, Any] = {"num_classes": classes}
    if name in _GOOGLE_NETS:
        options |= {"init_weights": True, "aux_logits": True, "transform_input": google_input}
    return torchvision.models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def drop_auxiliary(model: nn.Module) -> None:
    """Remove GoogLeNet's and Inception's auxiliary classifiers: their training output is not a tensor of logits."""
    for attribute in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, attribute):
            setattr(model, attribute, None)
    if hasattr(model, "aux_logits"):
        setattr(model, "aux_logits", False)  # noqa: B010 - nn.Module declares only tensors and modules


def imagenet_weights(name: str) -> Any:
    """Torchvision's default `Weights` member for `name`: address, preprocessing preset, category names, metrics.

    Raises:
        UsageError: unknown name, or torchvision has no ImageNet weights for it.
    """
    import torchvision

    require_backbone(name)
    weights = torchvision.models.get_model_weights(name)
    if len(weights) == 0:
        raise UsageError(f"torchvision has no ImageNet weights for '{name}'. Use --weights none or a file.")
    # `DEFAULT` is the best published; V1 matches the files that people already have on disk in architecture as well.
    return weights.DEFAULT
