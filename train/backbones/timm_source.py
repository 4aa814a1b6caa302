"""Backbones of timm, as `timm:NAME`: an optional second source with a thousand more architectures than torchvision.

Names are timm's, with or without the tag that says which of its weights are meant:
`timm:mobilenetv4_conv_small`, `timm:mobilenetv4_conv_small.e2400_r224_in1k`.
"""

from __future__ import annotations

import difflib
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.runtime.errors import MissingExtraError, UsageError, WeightsError
from edgewright.runtime.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "TIMM",
    "build_timm",
    "download_timm",
    "is_timm",
    "require_timm",
    "timm_categories",
    "timm_config",
    "timm_names",
    "timm_preprocess",
]

TIMM = "timm:"
"""What the name of a backbone starts with that comes from timm."""

_SAFE_FILE = "model.safetensors"


def is_timm(name: str) -> bool:
    """Does `name` mean a model of timm?"""
    return name.startswith(TIMM)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "timm") from error
    return timm


@cache
def _known() -> tuple[frozenset[str], frozenset[str]]:
    """Architectures, and architectures with the tag of one of their weights."""
    timm = _timm()
    return frozenset(timm.list_models()), frozenset(timm.list_models(pretrained=True))


def timm_names() -> list[str]:
    """Every architecture of the installed timm, without tags, as `timm:NAME`."""
    return sorted(TIMM + name for name in _known()[0])


def require_timm(name: str) -> None:
    """Raise UsageError, with near names, unless timm has `name`; MissingExtraError without timm."""
    bare = name.removeprefix(TIMM)
    architectures, tagged = _known()
    if bare in architectures or bare in tagged:
        return
    pool = tagged if bare.partition(".")[0] in architectures else architectures
    near = difflib.get_close_matches(bare, pool, n=5, cutoff=0.4) or ["mobilenetv4_conv_small", "efficientnet_lite0"]
    raise UsageError(f"Unknown backbone '{name}'. Near names: {', '.join(TIMM + other for other in near)}.")


def timm_config(name: str) -> Any:
    """Timm's `PretrainedCfg` of `name`: where its weights are, how pictures are prepared, licence."""
    from timm.models import get_pretrained_cfg

    require_timm(name)
    return get_pretrained_cfg(name.removeprefix(TIMM))


def build_timm(name: str, classes: int | None = None, state: dict[str, Any] | None = None) -> nn.Module:
    """A model of timm that returns logits, shape (N, classes).

    Args:
        name: `timm:NAME`.
        classes: Number of outputs; None for as many as its published weights have.
        state: Published weights of the model; timm renames what older files call otherwise.

    Raises:
        UsageError: unknown name, or a model that does not end in one linear layer.
        WeightsError: `state` does not fit.
    """
    from torch import nn

    from edgewright.train.backbones.surgery import head_of

    require_timm(name)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if state is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    try:
        model: nn.Module = _timm().create_model(name.removeprefix(TIMM), **options)
    except RuntimeError as error:
        if state is None:
            raise
        raise WeightsError(
            f"The published weights do not fit this timm's '{name}': {str(error).splitlines()[0]}. "
            "Install the newest timm, or give a file of yours with --weights PATH."
        ) from error
    # Otherwise the configuration would keep the weights as they were for as long as the model lives.
    described: Any = model
    described.pretrained_cfg.pop("state_dict", None)
    classifier = described.get_classifier()
    if not isinstance(classifier, nn.Linear) or head_of(model)[1] is not classifier:
        raise UsageError(
            f"'{name}' does not end in one linear layer, which a head for other classes needs. "
            "Choose another: edgewright backbones --filter timm:"
        )
    return model


def timm_preprocess(name: str) -> Preprocess:
    """The preprocessing of the published weights.

    timm resizes the shorter side to the input size divided by `crop_pct`, rounded down. Its random choice of the
    interpolation, made for training, means bilinear here.
    """
    config = timm_config(name)
    _, height, width = config.input_size
    if height != width:
        raise UsageError(f"'{name}' wants pictures of {width} x {height} px. Expected a model with square input.")
    return Preprocess(
        resize=max(height, math.floor(height / config.crop_pct)),
        crop=height,
        interpolation=config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bilinear",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def timm_categories(outputs: int) -> tuple[str, ...]:
    """Names of the outputs of weights for one of ImageNet's sets, told by their number; empty for any other."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": outputs})
    return () if subset is None else tuple(ImageNetInfo(subset).label_descriptions())


def download_timm(name: str) -> Path:
    """The published weights in Hugging Face's cache, downloaded unless they are there; safetensors only.

    Raises:
        UsageError: timm has no weights for `name`.
        WeightsError: they cannot be downloaded, or are published only as a pickle.
    """
    config = timm_config(name)
    if not config.hf_hub_id:
        raise UsageError(f"timm has no weights for '{name}'. Use --weights none or a file.")
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError

    repository, file = config.hf_hub_id, config.hf_hub_filename or _SAFE_FILE
    address = f"https://huggingface.co/{repository}"
    instead = f"Use --weights PATH with a file you have (.safetensors or .pth, see {address}), or --weights none."
    if not file.endswith(".safetensors"):
        raise WeightsError(f"The weights of '{name}' are published as '{file}', not as safetensors. {instead}")
    cached = try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # The download would try for half a minute to reach a hub that is not there.
        get_hf_file_metadata(hf_hub_url(repository, file))
        return Path(hf_hub_download(repository, file, cache_dir=constants.HF_HUB_CACHE))
    except EntryNotFoundError as error:
        raise WeightsError(f"The weights of '{name}' are not published as safetensors. {instead}") from error
    # A failed connection is whatever the HTTP library of the installed hub makes of it.
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise WeightsError(f"Cannot download the weights of '{name}' from {address}: {why}. {instead}") from error
