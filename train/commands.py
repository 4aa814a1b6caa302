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
        "trained_stages": record.trained_stages,
        "stages_total": record.stages_total,
        "stages": [stage.model_dump() for stage in record.stages],
        "calibration": None if record.calibration is None else record.calibration.model_dump(),
    }


def train_command(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images (train/ val/ test/, or one folder per class), a CSV of path,label, "
            "or digits, mnist, fashion_mnist, cifar10, cifar100."
        ),
    ],
    data_root: Annotated[Optional[str], typer.Option(help="Where mnist, cifar10 and so on are kept.")] = None,
    backbone: Annotated[
        Optional[str],
        typer.Option(help="A name that `edgewright backbones` lists, or timm:NAME. (default: mobilenet_v2)"),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(
            help="imagenet, builtin, none, a .pth or .safetensors file, or an earlier run. (default: imagenet)"
        ),
    ] = None,
    strategy: Annotated[
        Optional[str], typer.Option(help="auto, head, partial, full or scratch. (default: auto)")
    ] = None,
    budget: Annotated[
        Optional[str], typer.Option(help="Time for the whole run, such as 10m. (default: none, --epochs decides)")
    ] = None,
    out: Annotated[Optional[str], typer.Option(help="Run folder. (default: runs/DATA-BACKBONE-STRATEGY)")] = None,
    epochs: Annotated[
        Optional[int], typer.Option(help="Passes over the training split, at most. (default: 8; 30 with a budget)")
    ] = None,
    batch: Annotated[Optional[int], typer.Option(help="Pictures per step. (default: 32)")] = None,
    accumulate: Annotated[Optional[int], typer.Option(help="Batches per update of the weights. (default: 1)")] = None,
    imgsz: Annotated[Optional[int], typer.Option(help="Input size in pixels. (default: that of the weights)")] = None,
    train_imgsz: Annotated[
        Optional[int], typer.Option(help="Input size in training. (default: four fifths of --imgsz from 192 px on)")
    ] = None,
    decode: Annotated[
        Optional[str],
        typer.Option(
            help="full, or reduced: large JPEGs are decoded at 1/2 to 1/8 of their size, here and on the device."
        ),
    ] = None,
    patience: Annotated[
        Optional[int], typer.Option(help="Stop after so many epochs without better validation.")
    ] = None,
    freeze: Annotated[
        Optional[int], typer.Option(help="partial: how many stages to freeze, counted from the input.")
    ] = None,
    optimizer: Annotated[Optional[str], typer.Option(help="adamw or sgd. (default: adamw)")] = None,
    lr: Annotated[
        Optional[float],
        typer.Option(help="Peak learning rate. (default: 4e-4 pretrained, 3e-3 from random; sgd 1e-2, 1e-1)"),
    ] = None,
    layer_decay: Annotated[
        Optional[float],
        typer.Option(help="Learning rate of a stage over that of the one above it. (default: 0.8 pretrained)"),
    ] = None,
    warmup: Annotated[
        Optional[float], typer.Option(help="Share of the steps in which the learning rate rises. (default: 0.1)")
    ] = None,
    weight_decay: Annotated[Optional[float], typer.Option(help="(default: 0.02; sgd 1e-4)")] = None,
    label_smoothing: Annotated[Optional[float], typer.Option(help="(default: 0.1)")] = None,
    ema: Annotated[
        Optional[float],
        typer.Option(
            help="Evaluate and keep a moving average of the weights with this decay, such as 0.99. (default: off)"
        ),
    ] = None,
    balance: Annotated[
        Optional[str], typer.Option(help="Against class imbalance: none, loss (weighted) or sampler. (default: none)")
    ] = None,
    views: Annotated[
        Optional[int], typer.Option(help="partial, --teacher: cached views of each picture. (default: 3)")
    ] = None,
    augment: Annotated[
        Optional[str],
        typer.Option(help="basic (crop, mirror, colour) or trivial (crop, mirror, TrivialAugment). (default: basic)"),
    ] = None,
    crop_scale: Annotated[
        Optional[float],
        typer.Option(help="Smallest area of a random crop. (default: 0.35; 0.7 for digits and the like)"),
    ] = None,
    color_jitter: Annotated[Optional[float], typer.Option(help="Strength of colour changes. (default: 0.2)")] = None,
    mirror: Annotated[
        Optional[bool],
        typer.Option("--mirror/--no-mirror", help="Mirror half of the views. (default: yes, but not digits)"),
    ] = None,
    mixup: Annotated[
        Optional[float],
        typer.Option(help="Alpha of MixUp; 0: off. (default: 0.2 where every layer is tuned for long)"),
    ] = None,
    cutmix: Annotated[Optional[float], typer.Option(help="Alpha of CutMix, such as 1. (default: off)")] = None,
    val_fraction: Annotated[
        Optional[float], typer.Option(help="Validation share where no split exists. (default: 0.15)")
    ] = None,
    test_fraction: Annotated[
        Optional[float], typer.Option(help="Test share where no split exists. (default: 0.15)")
    ] = None,
    per_class: Annotated[Optional[int], typer.Option(help="Use only so many training pictures of each class.")] = None,
    teacher: Annotated[
        Optional[str], typer.Option(help="full, scratch: also learn what this run or backbone says.")
    ] = None,
    teacher_weights: Annotated[
        Optional[str], typer.Option(help="Weights of a teacher that is a backbone. (default: imagenet)")
    ] = None,
    teacher_imgsz: Annotated[
        Optional[int], typer.Option(help="The teacher's input size. (default: that of its weights)")
    ] = None,
    distill_weight: Annotated[
        Optional[float], typer.Option(help="Weight of the teacher, 0 to 1. (default: 0.5)")
    ] = None,
    distill_temperature: Annotated[
        Optional[float], typer.Option(help="Softens what teacher and student say. (default: 2)")
    ] = None,
    precision: Annotated[
        Optional[str], typer.Option(help="auto, fp32, bf16 or fp16; auto measures. (default: auto)")
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="auto, cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    workers: Annotated[Optional[int], typer.Option(help="Decoding threads. (default: one per core)")] = None,
    checkpoint_s: Annotated[
        Optional[str], typer.Option(help="Also save the state inside an epoch, every so often. (default: 5m)")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Splits, initialisation and augmentation. (default: 0)")] = None,
    config: Annotated[Optional[Path], typer.Option(help="A YAML file with any of these options; flags win.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run in --out.")] = False,
    resume: Annotated[bool, typer.Option(help="Continue the interrupted run in --out.")] = False,
    compare: Annotated[bool, typer.Option(help="Train every strategy and say whether transfer pays.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Fine-tune a pretrained backbone on a folder of images."""
    given = dict(locals())
    flags = {
        key: value for key, value in given.items() if key not in ("config", "overwrite", "resume", "compare", "json")
    }
    from edgewright.runtime.settings import load_settings
    from edgewright.train.config import TrainConfig

    settings = load_settings(TrainConfig, flags, config)
    require(
        "train", "torch", "torchvision", "openvino", "safetensors", "matplotlib", "accelerate", "tensorboard", "yaml"
    )
    if compare:
        _compare(settings, overwrite=overwrite, resume=resume, json=json)
        return
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


def _compare(settings: Any, *, overwrite: bool, resume: bool, json: bool) -> None:
    from edgewright.train.compare import compare

    result = compare(settings, overwrite=overwrite, resume=resume)
    rows = result.rows()
    if json:
        emit_json(
            {
                "folder": str(result.folder),
                "best": str(result.best.folder),
                "verdict": result.verdict,
                "strategies": rows,
            }
        )
    print_table(
        "all strategies",
        ("strategy", "val top-1", "test top-1", "seconds"),
        [
            (
                row["strategy"],
                f"{row['val_top1']:.4f}",
                None if row["test_top1"] is None else f"{row['test_top1']:.4f}",
                f"{row['seconds']:.0f}",
            )
            for row in rows
        ],
    )
    notice(result.verdict)
    notice(f"plot: {result.folder / 'compare.png'}")
    notice(f"next: edgewright export {result.best.folder} --out bundles/{result.folder.name}")
