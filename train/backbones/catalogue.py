"""Backbones by name: torchvision's classification models, and timm's as `timm:NAME`; no table of our own to keep up."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from edgewright.runtime.errors import MissingExtraError, UsageError
from edgewright.train.backbones.timm_source import TIMM, build_timm, is_timm, require_timm

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "IMAGENET_CLASSES",
    "backbone_names",
    "build_backbone",
    "build_empty",
    "drop_auxiliary",
    "imagenet_categories",
    "imagenet_weights",
    "licence_of",
    "require_backbone",
]

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
    """Raise UsageError, with near names, unless `name` is in the catalogue; `timm:` names need timm."""
    if is_timm(name):
        require_timm(name)
        return
    names = backbone_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or [
            "mobilenet_v2",
            "mobilenet_v3_small",
            "resnet18",
        ]
        raise UsageError(
            f"Unknown backbone '{name}'. Near names: {', '.join(near)}; models of timm start with '{TIMM}'."
        )


def build_backbone(name: str, classes: int = IMAGENET_CLASSES, *, google_input: bool = False) -> nn.Module:
    """An untrained model that returns logits, shape (N, classes).

    Args:
        name: A name of :func:`backbone_names`, or `timm:NAME`.
        classes: Number of outputs.
        google_input: For GoogLeNet and Inception v3: rescale the input as their published weights expect.

    Raises:
        UsageError: unknown name.
        MissingExtraError: a `timm:` name without timm.
    """
    import torchvision

    require_backbone(name)
    if is_timm(name):
        return build_timm(name, classes)
    options: dict[str, Any] = {"num_classes": classes}
    if name in _GOOGLE_NETS:
        options |= {"init_weights": True, "aux_logits": True, "transform_input": google_input}
    return torchvision.models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def build_empty(name: str, classes: int = IMAGENET_CLASSES) -> nn.Module:
    """The same in eval mode without values, on the device "meta", which takes neither time nor memory."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NumbersHaveValues(TorchFunctionMode):
        """RegNet and some of timm's models work out their widths with small tensors, and read them."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            where = {"device": "cpu"} if func in (torch.arange, torch.linspace, torch.tensor) else {}
            return func(*args, **(where | (kwargs or {})))

    with torch.device("meta"), NumbersHaveValues():
        model = build_backbone(name, classes)
    drop_auxiliary(model)
    return model.to("meta").eval()


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


def imagenet_categories() -> tuple[str, ...]:
    """Names of ImageNet's thousand classes, in the order that every published model of either library uses."""
    import torchvision

    return tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])


def licence_of(weights: Any) -> str | None:
    """Licence of weights of torchvision, where torchvision names one.

    Its README leaves it to the reader what applies to weights made from ImageNet; the one licence it states is that of
    the SWAG weights (https://github.com/pytorch/vision#pre-trained-model-license).
    """
    return "CC-BY-NC-4.0" if "SWAG" in weights.name else weights.meta.get("license")
