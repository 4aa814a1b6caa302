"""The peer of the training comparisons, a process of its own: training as PyTorch's transfer-learning tutorial does it.

"Transfer Learning for Computer Vision Tutorial" (S. Chilamkurthy, pytorch.org/tutorials): `ImageFolder`, `DataLoader`
with worker processes, RandomResizedCrop and flip in training, Resize and CenterCrop in evaluation, eager FP32, a train
and a validation phase in each epoch, the best epoch kept. Either a fixed feature extractor (frozen backbone, new last
layer) or every layer trained. In the peer's favour: batches of 32 instead of 4, as many worker processes and threads as
there are cores, and other optimizers to choose from.

Time counts from listing the data to test accuracy, as ours does; not the interpreter's start and the imports.
"""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from edgewright.benchmarks.peers.sides import Turns, work_in_turns
from edgewright.runtime.console import notice
from edgewright.runtime.errors import DataError, UsageError
from edgewright.runtime.folders import split_folder
from edgewright.runtime.parallel import available_cores

__all__ = ["RECIPES", "TutorialConfig", "train_as_tutorial"]

RECIPES = {
    "sgd": "SGD 0.001, momentum 0.9, divided by 10 every 7 epochs (the tutorial's own)",
    "adam": "Adam 0.001, divided by 10 every 7 epochs",
    "adamw": "AdamW 0.003 for the head and 0.0003 for the body, one cycle, weight decay 0.02, label smoothing 0.1",
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TutorialConfig:
    """What to train. `weights` is a file, `imagenet` (torchvision's download) or `none`."""

    data: str
    weights: str
    frozen: bool
    backbone: str = "mobilenet_v2"
    recipe: str = "sgd"
    epochs: int = 5
    batch: int = 32
    imgsz: int = 224
    per_class: int | None = None
    seed: int = 0


def train_as_tutorial(config: TutorialConfig, after_epoch: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Train, validate after each epoch, test the best one.

    Returns:
        `top1` (test), `val_top1`, `setup_s`, `test_s`, `images` per split, `trained_parameters` (how many), input sizes,
        `precision`, and `epochs`, a row each with `train_seconds` (loading included) and `val_seconds`.

    Raises:
        DataError: a split is missing.
        UsageError: unknown recipe, or a backbone whose last layer is not linear.
    """
    started = perf_counter()
    torch.manual_seed(config.seed)
    torch.set_num_threads(available_cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaders, classes = _loaders(config)
    model, head = _model(config, classes)
    model = model.to(device)
    steps = config.epochs * len(loaders["train"])
    optimizer, schedule, each_step = _recipe(config, model, head, steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1 if config.recipe == "adamw" else 0.0)
    setup_s = perf_counter() - started

    def phase(split: str) -> tuple[float, float]:
        """One pass over `split`: (top-1, seconds)."""
        began = perf_counter()
        learning = split == "train"
        model.train(learning)
        correct = torch.zeros((), dtype=torch.long, device=device)
        total_loss, seen = 0.0, 0
        for images, targets in loaders[split]:
            inputs, labels = images.to(device), targets.to(device)
            optimizer.zero_grad()
            with torch.set_grad_enabled(learning):
                outputs = model(inputs)
                loss = criterion(outputs, labels)
                if learning:
                    loss.backward()
                    optimizer.step()
            if learning and each_step:
                schedule.step()
            total_loss += loss.item() * len(labels)
            correct += torch.sum(outputs.argmax(1) == labels)
            seen += len(labels)
        if learning and not each_step:
            schedule.step()
        return int(correct) / seen, perf_counter() - began

    rows: list[dict[str, float]] = []
    best = copy.deepcopy(model.state_dict())
    for epoch in range(1, config.epochs + 1):
        train_top1, train_s = phase("train")
        val_top1, val_s = phase("val")
        # The first epoch replaces the untrained state in any case.
        if all(val_top1 > row["val_top1"] for row in rows):
            best = copy.deepcopy(model.state_dict())
        rows.append(
            {"train_top1": train_top1, "val_top1": val_top1, "train_seconds": train_s, "val_seconds": val_s},
        )
        notice(
            f"tutorial, {config.recipe}: epoch {epoch}/{config.epochs}  train top-1 {train_top1:.4f}  "
            f"val top-1 {val_top1:.4f}  {train_s:.0f} + {val_s:.0f} s"
        )
        after_epoch()
    model.load_state_dict(best)
    top1, test_s = phase("test")
    return {
        "top1": top1,
        "val_top1": max(row["val_top1"] for row in rows),
        "setup_s": setup_s,
        "test_s": test_s,
        "images": {split: len(loader.dataset) for split, loader in loaders.items()},  # type: ignore[arg-type]
        "imgsz": config.imgsz,
        "train_imgsz": config.imgsz,
        "precision": "fp32",
        "trained_parameters": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "epochs": rows,
    }


def _loaders(config: TutorialConfig) -> tuple[dict[str, DataLoader[Any]], int]:
    normalize = [transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    varied = [transforms.RandomResizedCrop(config.imgsz), transforms.RandomHorizontalFlip()]
    central = [transforms.Resize(round(config.imgsz * 256 / 224)), transforms.CenterCrop(config.imgsz)]
    loaders: dict[str, DataLoader[Any]] = {}
    classes: list[str] = []
    for split in ("train", "val", "test"):
        folder = split_folder(Path(config.data), split)
        if folder is None:
            raise DataError(f"'{config.data}' has no folder for {split}. Expected train/, val/ and test/ with classes.")
        pictures = ImageFolder(folder, transforms.Compose([*(varied if split == "train" else central), *normalize]))
        classes = classes or pictures.classes
        if pictures.classes != classes:
            raise DataError(f"'{folder}' has other classes than the training split. Expected the same folders in each.")
        chosen = _some_per_class(pictures, config) if split == "train" else pictures
        loaders[split] = DataLoader(
            chosen,
            batch_size=config.batch,
            shuffle=True,
            num_workers=available_cores(),
            # A last batch of one picture has no variance for BatchNorm.
            drop_last=split == "train" and len(chosen) % config.batch == 1,
        )
    return loaders, len(classes)


def _some_per_class(pictures: Any, config: TutorialConfig) -> Any:
    if config.per_class is None:
        return pictures
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(pictures.targets):
        members[label].append(index)
    draw = random.Random(config.seed)
    taken = [draw.sample(group, min(len(group), config.per_class)) for group in members.values()]
    return Subset(pictures, [index for group in taken for index in group])


def _model(config: TutorialConfig, classes: int) -> tuple[nn.Module, nn.Linear]:
    """The backbone with its last linear layer replaced, and that layer."""
    published = "DEFAULT" if config.weights == "imagenet" else None
    model: nn.Module = torchvision.models.get_model(config.backbone, weights=published)
    if config.weights not in ("imagenet", "none"):
        model.load_state_dict(torch.load(config.weights, map_location="cpu", weights_only=True))
    for parameter in model.parameters():
        parameter.requires_grad = not config.frozen
    name, last = list(model.named_modules())[-1]
    if not isinstance(last, nn.Linear):
        raise UsageError(f"The last layer of '{config.backbone}' is a {type(last).__name__}. Expected a linear one.")
    parent, _, attribute = name.rpartition(".")
    head = nn.Linear(last.in_features, classes)
    setattr(model.get_submodule(parent), attribute, head)
    return model, head


def _recipe(
    config: TutorialConfig, model: nn.Module, head: nn.Linear, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, bool]:
    """Optimizer, schedule, and whether the schedule moves with each step instead of each epoch."""
    if config.recipe not in RECIPES:
        raise UsageError(f"Unknown recipe '{config.recipe}'. Expected one of: {', '.join(RECIPES)}.")
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer
    if config.recipe == "adamw":
        fresh = {id(parameter) for parameter in head.parameters()}
        groups = [
            {"params": [parameter for parameter in learning if id(parameter) not in fresh], "lr": 3e-4},
            {"params": list(head.parameters()), "lr": 3e-3},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=steps + 1), True
    optimizer = torch.optim.SGD(learning, lr=1e-3, momentum=0.9)
    if config.recipe == "adam":
        optimizer = torch.optim.Adam(learning, lr=1e-3)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1), False


def _work(request: dict[str, Any], turns: Turns) -> dict[str, Any]:
    started = perf_counter()
    found = train_as_tutorial(TutorialConfig(**request), turns.hand_over)
    return {"seconds": perf_counter() - started - turns.waited_s} | found


if __name__ == "__main__":
    work_in_turns(_work)
