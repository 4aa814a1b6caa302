"""A head on a frozen backbone, start to test accuracy: ours against PyTorch's tutorial, "ConvNet as fixed feature extractor".

    python -m edgewright.benchmarks.peers.head_training [--data DATA] [--weights PATH] [--json]

Each side is a process of its own; ours goes first and last. Seconds are those of the whole job: listing the data, building
the model, training, the best epoch's test accuracy, and for ours also checking every picture, compilation, plots and report.
The imports at a process's start are left out on both sides; libraries that ours loads on the way (engine, solver, plots)
count. The tutorial's SGD has not converged after so few epochs, so the peer may use Adam (the default).
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.peers.sides import default_data, default_weights, machine, ours, run_script, tutorial
from edgewright.runtime.console import emit_json, print_table

__all__ = ["compare_heads"]


def compare_heads(
    data: str,
    weights: str,
    *,
    backbone: str,
    epochs: int,
    batch: int,
    imgsz: int,
    recipe: str,
    runs: int,
    per_class: int | None,
    seed: int,
) -> dict[str, Any]:
    """Train `runs` heads of ours and one the tutorial's way, and compare.

    Returns:
        `ours` and `peer` with `seconds` and `top1` (test), and `ratio`: the peer's seconds over ours. With several runs
        `ours` is the one in the middle by time.
    """
    common: dict[str, Any] = {
        "data": data,
        "weights": weights,
        "backbone": backbone,
        "imgsz": imgsz,
        "per_class": per_class,
        "seed": seed,
    }
    facts = machine()
    mine = [ours("ours", strategy="head", **common).run()]
    peer = tutorial("the tutorial", frozen=True, recipe=recipe, epochs=epochs, batch=batch, **common).run()
    mine += [ours("ours", strategy="head", **common).run() for _ in range(runs - 1)]
    seconds = median(run["seconds"] for run in mine)
    middle = min(mine, key=lambda run: abs(run["seconds"] - seconds))
    trained = epochs * peer["images"]["train"]
    return {
        "ours": {
            "seconds": seconds,
            "top1": middle["top1"],
            "val_top1": middle["val_top1"],
            "note": middle["note"],
            "seconds_of_each_run": [run["seconds"] for run in mine],
        },
        "peer": {
            "seconds": peer["seconds"],
            "top1": peer["top1"],
            "val_top1": peer["val_top1"],
            "recipe": recipe,
            "epochs": epochs,
            "batch": batch,
            "train_images_per_s": trained / sum(epoch["train_seconds"] for epoch in peer["epochs"]),
            "test_seconds": peer["test_s"],
        },
        "ratio": peer["seconds"] / seconds,
        "backbone": backbone,
        "imgsz": {"ours": middle["imgsz"], "peer": peer["imgsz"]},
        "images": {"ours": middle["images"], "peer": peer["images"]},
        "device": facts,
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
    epochs: Annotated[int, typer.Option(min=1, help="The peer's passes over the training split.")] = 5,
    batch: Annotated[int, typer.Option(min=2, help="The peer's pictures per step.")] = 32,
    imgsz: Annotated[int, typer.Option(min=16, help="Input size of both, in pixels.")] = 224,
    recipe: Annotated[str, typer.Option(help="The peer's optimizer: sgd (the tutorial's), adam or adamw.")] = "adam",
    runs: Annotated[int, typer.Option(min=1, help="Runs of ours; the median counts.")] = 1,
    per_class: Annotated[
        Optional[int], typer.Option(min=1, help="Only so many training pictures of each class, for a quick look.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure both."""
    document = compare_heads(
        default_data(data),
        default_weights(weights, backbone),
        backbone=backbone,
        epochs=epochs,
        batch=batch,
        imgsz=imgsz,
        recipe=recipe,
        runs=runs,
        per_class=per_class,
        seed=seed,
    )
    if json:
        emit_json(document)
    print_table(
        f"{backbone}, head only, {imgsz} px: ours is {document['ratio']:.1f} times as fast",
        ("", "seconds", "test top-1", "how"),
        [
            (name, f"{side['seconds']:.1f}", f"{side['top1']:.4f}", how)
            for name, side, how in (
                ("ours", document["ours"], document["ours"]["note"]),
                ("tutorial", document["peer"], f"{recipe}, {epochs} epochs"),
            )
        ],
    )


if __name__ == "__main__":
    run_script(main)
