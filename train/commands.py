"""`edgewright train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.extras import require

__all__ = ["train_command", "train_document"]


def train_document(run: Any) -> dict[str, Any]:
    """The `--json` document of a finished run."""
    record = run.record
    return {
        "run": str(run.folder),
        "strategy": record.strategy,
        "backbone": record.backbone,
        "weights": record.weights,
        "classes": list(record.classes),
        "val": {"top1": record.val_top1},
        "test": None if record.test_top1 is None else {"top1": record.test_top1},
        "seconds": record.seconds,
    }


def train_command(
    data: Annotated[
        str, typer.Argument(help="A folder of images (with train/ val/ test/, or one folder per class), or 'digits'.")
    ],
    backbone: Annotated[
        Optional[str], typer.Option(help="A torchvision classification model. [default: mobilenet_v2]")
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(
            help="imagenet, builtin, none, a .pth or .safetensors file, or an earlier run. [default: imagenet]"
        ),
    ] = None,
    strategy: Annotated[Optional[str], typer.Option(help="head, partial, full or scratch. [default: head]")] = None,
    out: Annotated[Optional[str], typer.Option(help="Run folder. [default: runs/DATA-BACKBONE-STRATEGY]")] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the training split. [default: 6]")] = None,
    batch: Annotated[Optional[int], typer.Option(help="Pictures per step. [default: 32]")] = None,
    imgsz: Annotated[Optional[int], typer.Option(help="Input size in pixels. [default: that of the weights]")] = None,
    lr: Annotated[
        Optional[float], typer.Option(help="Peak learning rate of the head; a pretrained body gets a tenth.")
    ] = None,
    weight_decay: Annotated[Optional[float], typer.Option(help="AdamW's weight decay. [default: 0.02]")] = None,
    label_smoothing: Annotated[Optional[float], typer.Option(help="[default: 0.1]")] = None,
    patience: Annotated[
        Optional[int], typer.Option(help="Stop after so many epochs without better validation.")
    ] = None,
    freeze: Annotated[
        Optional[int], typer.Option(help="partial: how many stages to freeze, counted from the input.")
    ] = None,
    views: Annotated[
        Optional[int], typer.Option(help="partial, --teacher: cached views of each picture. [default: 3]")
    ] = None,
    crop_scale: Annotated[Optional[float], typer.Option(help="Smallest area of a random crop. [default: 0.35]")] = None,
    color_jitter: Annotated[Optional[float], typer.Option(help="Strength of colour changes. [default: 0.2]")] = None,
    mirror: Annotated[
        Optional[bool],
        typer.Option("--mirror/--no-mirror", help="Mirror half of the views. [default: yes, but not digits]"),
    ] = None,
    val_fraction: Annotated[
        Optional[float], typer.Option(help="Validation share where no split exists. [default: 0.15]")
    ] = None,
    test_fraction: Annotated[
        Optional[float], typer.Option(help="Test share where no split exists. [default: 0.15]")
    ] = None,
    per_class: Annotated[Optional[int], typer.Option(help="Use only so many training pictures of each class.")] = None,
    teacher: Annotated[Optional[str], typer.Option(help="full, scratch: also learn what this backbone says.")] = None,
    teacher_weights: Annotated[Optional[str], typer.Option(help="The teacher's weights. [default: imagenet]")] = None,
    teacher_imgsz: Annotated[
        Optional[int], typer.Option(help="The teacher's input size. [default: that of its weights]")
    ] = None,
    distill_weight: Annotated[
        Optional[float], typer.Option(help="Weight of the teacher, 0 to 1. [default: 0.5]")
    ] = None,
    precision: Annotated[Optional[str], typer.Option(help="fp32 or bf16. [default: fp32]")] = None,
    device: Annotated[Optional[str], typer.Option(help="auto, cpu, cuda, cuda:1, mps. [default: auto]")] = None,
    workers: Annotated[Optional[int], typer.Option(help="Decoding threads. [default: one per core]")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Splits, initialisation and augmentation. [default: 0]")] = None,
    config: Annotated[Optional[Path], typer.Option(help="A YAML file with any of these options; flags win.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run in --out.")] = False,
    resume: Annotated[bool, typer.Option(help="Continue the interrupted run in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Fine-tune a pretrained backbone on a folder of images."""
    given = dict(locals())
    flags = {key: value for key, value in given.items() if key not in ("config", "overwrite", "resume", "json")}
    from edgewright.runtime.settings import load_settings
    from edgewright.train.config import TrainConfig

    settings = load_settings(TrainConfig, flags, config)
    require("train", "torch", "torchvision", "openvino", "safetensors", "matplotlib", "tensorboard", "yaml")
    from edgewright.train.trainer import train

    run = train(settings, overwrite=overwrite, resume=resume)
    record = run.record
    if json:
        emit_json(train_document(run))
    print_table(
        f"{record.name}: {record.note}",
        ("split", "pictures", "top-1"),
        [
            (split, sum(record.counts[split].values()), None if top1 is None else f"{top1:.4f}")
            for split, top1 in (("val", record.val_top1), ("test", record.test_top1))
        ],
    )
    notice(f"{record.seconds:.1f} s; pictures and report in {run.folder}")
    notice(f"next: edgewright export {run.folder} --out bundles/{record.name}")
