"""Weights from four places: torchvision's or timm's download, the package, a file or an earlier run, or none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from edgewright.runtime.errors import UsageError, WeightsError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import (
    IMAGENET_CLASSES,
    build_backbone,
    drop_auxiliary,
    imagenet_categories,
    imagenet_weights,
    licence_of,
    require_backbone,
)
from edgewright.train.backbones.surgery import head_of, replace_head
from edgewright.train.backbones.timm_source import (
    build_timm,
    download_timm,
    is_timm,
    timm_categories,
    timm_config,
    timm_preprocess,
)
from edgewright.train.run import read_run

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BUILTIN_BACKBONE", "Pretrained", "load_pretrained", "preprocess_for"]

BUILTIN_BACKBONE = "mobilenet_v3_small"
_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
"""Published DenseNet files name layers as a PyTorch of 2017 did; torchvision renames them likewise."""

_BUILTIN_FILE = "builtin.safetensors"
_BUILTIN_CARD = "builtin.json"


@dataclass(frozen=True)
class Pretrained:
    """A backbone with weights.

    Attributes:
        model: Images to logits of `classes`.
        classes: Names of the outputs, empty if they mean nothing (weights `none`, `builtin`).
        source: What a report says about where the weights came from.
        licence: Licence of the weights where it is known.
    """

    model: nn.Module
    classes: tuple[str, ...]
    source: str
    licence: str | None


def preprocess_for(backbone: str, weights: str, imgsz: int | None, resize_to_crop: bool) -> Preprocess:
    """The preprocessing that goes with the weights, at `imgsz` where one is asked for.

    torchvision's presets and timm's configurations give size, interpolation and statistics for their own weights, and
    for files with the same architecture; the built-in weights and runs carry their own.
    """
    require_backbone(backbone)
    if weights == "builtin":
        base = Preprocess(**_builtin_card()["preprocess"])
    elif weights not in ("none", "imagenet") and Path(weights).is_dir():
        base = read_run(Path(weights)).record.preprocess
    elif is_timm(backbone):
        base = timm_preprocess(backbone)
    else:
        base = _preset(backbone, published=weights == "imagenet")
    crop = imgsz or base.crop
    resize = crop if resize_to_crop else max(crop, round(base.resize * crop / base.crop))
    return base.model_copy(update={"crop": crop, "resize": resize})


def _preset(backbone: str, *, published: bool) -> Preprocess:
    import torchvision

    members = list(torchvision.models.get_model_weights(backbone))
    if not members:
        return Preprocess()
    # A file is most likely made with the first recipe, whose sizes the architecture is known by; torchvision's own
    # download is of the latest, which for some has others.
    preset = (imagenet_weights(backbone) if published else members[0]).transforms()
    interpolation = preset.interpolation.value
    return Preprocess(
        resize=max(preset.resize_size[0], preset.crop_size[0]),
        crop=preset.crop_size[0],
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bilinear",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def load_pretrained(backbone: str, weights: str) -> Pretrained:
    """A backbone with `weights`: `imagenet`, `builtin`, `none`, a `.pth` or `.safetensors` file, or a run folder.

    Raises:
        UsageError: unknown backbone, or weights that this backbone does not have.
        WeightsError: cannot be downloaded, cannot be read, or made for another model.
    """
    require_backbone(backbone)
    if weights == "none":
        model = build_backbone(backbone)
        drop_auxiliary(model)
        return Pretrained(model, (), "random initialisation", None)
    if weights == "imagenet":
        return _from_timm(backbone) if is_timm(backbone) else _from_torchvision(backbone)
    if weights == "builtin":
        return _from_package(backbone)
    path = Path(weights)
    if weights and path.is_dir():
        return _from_run(backbone, path)
    if not path.is_file():
        raise WeightsError(
            f"No weights at '{weights}'. Expected imagenet, builtin, none, a .pth or .safetensors file, or a run folder."
        )
    model = _model_with(backbone, _read_state(path), str(path))
    _, head = _output_layer(model)
    names = imagenet_categories() if head == IMAGENET_CLASSES else ()
    return Pretrained(model, names, f"file {path.name}", None)


def _from_torchvision(backbone: str) -> Pretrained:
    weights = imagenet_weights(backbone)
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Checks the digest that is part of the file's name.
            torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"Cannot download the ImageNet weights of '{backbone}': {error}. Use --weights builtin (ships with "
                f"edgewright, backbone {BUILTIN_BACKBONE}), --weights PATH with a file you have, or put "
                f"'{file.name}' into '{file.parent}'."
            ) from error
    # torchvision itself would unpickle whatever lies in the cache.
    model = _model_with(backbone, _read_state(file), str(file))
    return Pretrained(model, tuple(weights.meta["categories"]), f"torchvision {weights}", licence_of(weights))


def _from_timm(backbone: str) -> Pretrained:
    file = download_timm(backbone)
    config = timm_config(backbone)
    model = build_timm(backbone, state=_read_state(file))
    outputs = head_of(model)[1].out_features
    # Names as torchvision has them, so that models of both libraries can be compared and taught by each other.
    names = imagenet_categories() if outputs == IMAGENET_CLASSES else timm_categories(outputs)
    return Pretrained(model, names, f"timm {config.hf_hub_id}", config.license)


def _builtin_card() -> dict[str, Any]:
    card: dict[str, Any] = json.loads((resources.files("edgewright.train") / "weights" / _BUILTIN_CARD).read_text())
    return card


def _from_package(backbone: str) -> Pretrained:
    if backbone != BUILTIN_BACKBONE:
        raise UsageError(
            f"The built-in weights are for '{BUILTIN_BACKBONE}', not for '{backbone}'. "
            f"Use --backbone {BUILTIN_BACKBONE}, or --weights imagenet, none or PATH."
        )
    with resources.as_file(resources.files("edgewright.train") / "weights" / _BUILTIN_FILE) as path:
        state = _read_state(path)
    model = build_backbone(backbone)
    # Everything but the head, which never meant anything to anyone but the source task.
    missing, unexpected = model.load_state_dict(state, strict=False)
    head, _ = head_of(model)
    if unexpected or set(missing) != {f"{head}.weight", f"{head}.bias"}:
        raise WeightsError(f"The built-in weights do not fit this torchvision's '{backbone}': {missing or unexpected}.")
    card = _builtin_card()
    return Pretrained(model, (), f"built-in ({card['source']})", card["licence"])


def _from_run(backbone: str, run: Path) -> Pretrained:
    record = read_run(run).record
    if record.backbone != backbone:
        raise WeightsError(f"The run '{run}' holds a '{record.backbone}'. Expected '{backbone}': set --backbone.")
    model = build_backbone(backbone)
    drop_auxiliary(model)
    replace_head(model, len(record.classes))
    _load_strictly(model, _read_state(run / "best.safetensors"), str(run))
    return Pretrained(model, record.classes, f"run {run.name}", record.weights_licence)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    # The readers raise whatever the bytes lead them to, and torch's own text advises to switch the safety off.
    except Exception as error:
        raise WeightsError(
            f"Cannot read weights from '{path}' ({type(error).__name__}): it is damaged, or holds more than tensors. "
            "Expected a state dict saved with torch.save, or a .safetensors file."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, torch.Tensor) and value.layout == torch.strided for value in state.values())
    ):
        raise WeightsError(f"'{path}' holds no state dict. Expected a mapping from parameter names to tensors.")
    return {
        _DENSENET_KEY.sub(r"\1\2", str(key).removeprefix("module.")): value.float()
        if value.dtype in (torch.float16, torch.bfloat16)
        else value
        for key, value in state.items()
    }


def _model_with(backbone: str, state: dict[str, torch.Tensor], origin: str) -> nn.Module:
    model = build_backbone(backbone, google_input=True)
    name, classes = _output_layer(model)
    weight = state.get(f"{name}.weight")
    if weight is not None and weight.ndim >= 1 and weight.shape[0] != classes:
        model = build_backbone(backbone, classes=weight.shape[0], google_input=True)
    if not any(key.lower().startswith("aux") for key in state):
        drop_auxiliary(model)
    _load_strictly(model, state, origin)
    drop_auxiliary(model)
    return model


def _output_layer(model: nn.Module) -> tuple[str, int]:
    """Name and number of outputs of the layer that gives the logits: linear, or SqueezeNet's convolution."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.lower().startswith("aux")
    ]
    if layers:
        return layers[-1][0], layers[-1][1].out_features
    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    return convolutions[-1][0], convolutions[-1][1].out_channels


def _load_strictly(model: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    expected = model.state_dict()
    # Counters that only training with a cumulative average reads; files from before PyTorch 0.4.1 lack them.
    state = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")} | state
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or unexpected or wrong:
        example = (
            f"'{wrong[0]}' has shape {tuple(state[wrong[0]].shape)}, expected {tuple(expected[wrong[0]].shape)}"
            if wrong
            else f"it lacks '{missing[0]}'"
            if missing
            else f"it has '{unexpected[0]}', which the model does not"
        )
        raise WeightsError(
            f"The weights in '{origin}' do not fit {type(model).__name__}: {len(missing)} parameters missing, "
            f"{len(unexpected)} unexpected, {len(wrong)} of another shape ({example}). "
            "Check that --backbone names the model they were made for."
        )
    model.load_state_dict(state)
