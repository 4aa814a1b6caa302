"""What fastai's `fine_tune` reaches in a given time: a script for an interpreter that has fastai, which ours need not have.

One JSON document comes in on stdin: `data` (a folder with train, val and test), `backbone`, `weights` (a file of
torchvision's model), `budget_s`, `imgsz`, `seed`. One goes out on stdout: {"result": {"seconds", "epochs", "top1", ...}}.

As fastai's documentation does it for pictures of all sizes: `vision_learner`, `item_tfms=Resize(460)`,
`batch_tfms=aug_transforms(size=224, min_scale=0.75)`, `fine_tune(epochs)` with its defaults: one epoch of the head, then
all layers with discriminative learning rates. fastai has to know the number of epochs beforehand: a few steps and a
validation are timed first, on a learner that is thrown away, and are not counted. Counted is what `fine_tune` and the test
take.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    default_split,
    get_image_files,
    imagenet_stats,
    model_meta,
    set_seed,
    vision_learner,
)

_WARM_STEPS, _TIMED_STEPS = 2, 6


def _learner(request: dict[str, Any]) -> Any:
    data, size = Path(request["data"]), request["imgsz"]
    valid = next(name for name in ("val", "valid", "validation") if (data / name).is_dir())
    loaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid=valid,
        item_tfms=Resize(round(460 * size / 224)),
        batch_tfms=[*aug_transforms(size=size, min_scale=0.75), Normalize.from_stats(*imagenet_stats)],
        bs=request["batch"],
    )

    def arch(pretrained: bool = True) -> torch.nn.Module:
        model: torch.nn.Module = torchvision.models.get_model(request["backbone"], weights=None)
        model.load_state_dict(torch.load(request["weights"], map_location="cpu", weights_only=True))
        return model

    # fastai's own table says where ResNets and their like are cut; a model that is not in it is cut at its last pooling
    # layer, but MobileNetV2, which pools in a function, at its classifier.
    known = model_meta.get(getattr(torchvision.models, request["backbone"]))
    cut = -1 if request["backbone"] == "mobilenet_v2" else None
    model_meta[arch] = {"cut": cut, "split": default_split} if known is None else known.copy()
    model_meta[arch].pop("weights", None)
    return vision_learner(loaders, arch, metrics=accuracy)


def _planned_epochs(request: dict[str, Any]) -> tuple[int, float]:
    """Epochs of `fine_tune`, besides the one of the head, that fit; and images per second in training."""
    learner = _learner(request)
    learner.unfreeze()
    learner.create_opt()
    learner.model.train()
    loader = learner.dls.train
    started, seen = time.perf_counter(), 0
    for step, (images, labels) in enumerate(loader):
        if step == _WARM_STEPS:
            started, seen = time.perf_counter(), 0
        learner.loss_func(learner.model(images), labels).backward()
        learner.opt.step()
        learner.opt.zero_grad()
        seen += len(labels)
        if step + 1 == _WARM_STEPS + _TIMED_STEPS:
            break
    images_per_s = seen / (time.perf_counter() - started)
    started = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.validate()
    validation_s = time.perf_counter() - started
    epoch_s = len(loader.dataset) / images_per_s + validation_s
    test_s = validation_s * len(get_image_files(Path(request["data"]) / "test")) / len(learner.dls.valid_ds)
    # One epoch is the head's.
    return max(1, math.floor((request["budget_s"] - test_s) / epoch_s) - 1), images_per_s


def main() -> None:
    """Plan, fine-tune, test."""
    request = json.loads(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):
        epochs, images_per_s = _planned_epochs(request)
        print(f"fastai: {images_per_s:.1f} images/s, so fine_tune({epochs})", flush=True)
        set_seed(request["seed"])
        started = time.perf_counter()
        learner = _learner(request)
        with learner.no_bar():
            learner.fine_tune(epochs)
            pictures = get_image_files(Path(request["data"]) / "test")
            _, top1 = learner.validate(dl=learner.dls.test_dl(pictures, with_labels=True))
        seconds = time.perf_counter() - started
    result = {"seconds": seconds, "epochs": epochs, "top1": float(top1), "images_per_s": images_per_s}
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main()
