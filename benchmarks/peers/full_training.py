"""Every layer trained: images per second and accuracy of ours against PyTorch's tutorial, "Finetuning the ConvNet".

    python -m edgewright.benchmarks.peers.full_training [--data DATA] [--weights PATH] [--json]

The two processes take turns, an epoch each, the other one waiting: a slower or busier minute of the machine meets both.
Images per second are those of the training phase with loading and augmentation, the median over epochs; validation and
test are apart, and so is what ours does before the first epoch (checking the pictures, solving for the head). `seconds` has
all of it, without the waiting. Ours is `train` with strategy `full` and its own defaults; the peer is eager FP32 with the tutorial's SGD;
with --same-recipe a second peer uses AdamW with one cycle, learning rates apart for body and head, and label smoothing.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.peers.sides import (
    Side,
    default_data,
    default_weights,
    in_turns,
    machine,
    ours,
    run_script,
    tutorial,
)
from edgewright.runtime.console import emit_json, print_table, warn

__all__ = ["compare_full_training"]


def compare_full_training(
    data: str,
    weights: str,
    *,
    backbone: str,
    epochs: int,
    batch: int,
    imgsz: int,
    train_imgsz: int | None,
    precision: str,
    same_recipe: bool,
    per_class: int | None,
    seed: int,
) -> dict[str, Any]:
    """Train every layer both ways, an epoch by turns, and compare.

    Returns:
        `ours` and `peer` (and `peer_same_recipe`) with `images_per_s` and `top1` (test), `ratio`: ours over the peer's,
        and `seconds_ratio`: the whole job of the peer over ours.
    """
    common: dict[str, Any] = {
        "data": data,
        "weights": weights,
        "backbone": backbone,
        "epochs": epochs,
        "batch": batch,
        "imgsz": imgsz,
        "per_class": per_class,
        "seed": seed,
    }
    facts = machine()
    sides = {
        "ours": ours("ours", strategy="full", train_imgsz=train_imgsz, precision=precision, **common),
        "peer": tutorial("the tutorial", frozen=False, recipe="sgd", **common),
    }
    if same_recipe:
        sides["peer_same_recipe"] = tutorial("the tutorial, our recipe", frozen=False, recipe="adamw", **common)
    in_turns(list(sides.values()))
    if any(side.turns < epochs for side in sides.values()):
        warn("a side did not hand over after each epoch: its figures are less comparable")
    rows = {name: _row(side) for name, side in sides.items()}
    return {
        **rows,
        "ratio": rows["ours"]["images_per_s"] / rows["peer"]["images_per_s"],
        "seconds_ratio": rows["peer"]["seconds"] / rows["ours"]["seconds"],
        "backbone": backbone,
        "epochs": epochs,
        "batch": batch,
        "device": facts,
    }


def _row(side: Side) -> dict[str, Any]:
    result = side.result
    speeds = [result["images"]["train"] / epoch["train_seconds"] for epoch in result["epochs"]]
    return {
        "images_per_s": median(speeds),
        "top1": result["top1"],
        "val_top1": result["val_top1"],
        "seconds": result["seconds"],
        "imgsz": result["imgsz"],
        "train_imgsz": result["train_imgsz"],
        "precision": result["precision"],
        "images": result["images"],
        "turns": side.turns,
        "images_per_s_of_each_epoch": speeds,
        "val_top1_of_each_epoch": [epoch["val_top1"] for epoch in result["epochs"]],
    }


def main(
    data: Annotated[
        Optional[Path], typer.Option(help="A folder with train, val and test. (default: ../shared/data/clothing)")
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(help="imagenet, none or a .pth file. (default: ../shared/weights/BACKBONE-imagenet.pth)"),
    ] = None,
    backbone: Annotated[str, typer.Option(help="A torchvision model that ends in a linear layer.")] = "mobilenet_v2",
    epochs: Annotated[int, typer.Option(min=1, help="Passes of each side over the training split.")] = 3,
    batch: Annotated[int, typer.Option(min=2, help="Pictures per step.")] = 32,
    imgsz: Annotated[int, typer.Option(min=16, help="Input size of both, in pixels.")] = 224,
    train_imgsz: Annotated[
        Optional[int], typer.Option(min=16, help="Ours: input size in training. (default: train's own choice)")
    ] = None,
    precision: Annotated[str, typer.Option(help="Ours: auto, fp32, bf16 or fp16.")] = "auto",
    same_recipe: Annotated[
        bool, typer.Option("--same-recipe", help="Also the tutorial's loop with AdamW, one cycle and label smoothing.")
    ] = False,
    per_class: Annotated[
        Optional[int], typer.Option(min=1, help="Only so many training pictures of each class, for a quick look.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure both."""
    document = compare_full_training(
        default_data(data),
        default_weights(weights, backbone),
        backbone=backbone,
        epochs=epochs,
        batch=batch,
        imgsz=imgsz,
        train_imgsz=train_imgsz,
        precision=precision,
        same_recipe=same_recipe,
        per_class=per_class,
        seed=seed,
    )
    if json:
        emit_json(document)
    print_table(
        f"{backbone}, every layer, {epochs} epochs in turns: ours is {document['ratio']:.2f} times as fast",
        ("", "images/s in training", "px in training", "precision", "test top-1", "val top-1", "seconds"),
        [
            (
                name,
                f"{row['images_per_s']:.1f}",
                row["train_imgsz"],
                row["precision"],
                f"{row['top1']:.4f}",
                f"{row['val_top1']:.4f}",
                f"{row['seconds']:.0f}",
            )
            for name, row in document.items()
            if name in ("ours", "peer", "peer_same_recipe")
        ],
    )


if __name__ == "__main__":
    run_script(main)
