"""What is exported: a trained run, or a pretrained backbone with its own classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.runtime.console import notice
from edgewright.runtime.errors import DataError, UsageError
from edgewright.runtime.folders import pictures_in, split_folder
from edgewright.runtime.images import EXTENSIONS
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import require_backbone
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.data import Sample, read_data
from edgewright.train.data.check import readable
from edgewright.train.run import read_run

__all__ = ["ExportSource", "source_from_backbone", "source_from_run"]

_UNLABELLED = -1


@dataclass(frozen=True)
class ExportSource:
    """A trained network and the pictures that belong to it.

    Attributes:
        network: Eval mode, on the CPU.
        calibration: Training pictures; INT8 ranges come from them and from nothing else.
        training: Training pictures with labels, for quantization-aware training; none for a backbone.
        checked: Pictures that were not trained on, by split; parity is measured on all of them. Samples of a
            pretrained backbone have the label -1, since their folders are not its classes.
    """

    name: str
    network: Network
    labels: tuple[str, ...]
    preprocess: Preprocess
    calibration: tuple[Sample, ...]
    training: tuple[Sample, ...]
    checked: dict[str, tuple[Sample, ...]]
    labelled: bool
    backbone: str
    weights: str
    licence: str | None
    strategy: str | None
    data: str | None
    seed: int | None
    mirrored: bool = False


def source_from_run(folder: Path, calibration: Path | None) -> ExportSource:
    """A finished run; calibrates on the run's training split unless told otherwise."""
    run = read_run(folder)
    data = run.data()
    record = run.record
    pictures = data.splits["train"] if calibration is None else readable(_pictures(calibration))
    return ExportSource(
        name=record.name,
        network=run.network(),
        labels=record.classes,
        preprocess=record.preprocess,
        calibration=tuple(pictures),
        training=data.splits["train"],
        checked={split: data.splits[split] for split in ("val", "test") if data.splits[split]},
        labelled=True,
        backbone=record.backbone,
        weights=record.weights,
        licence=record.weights_licence,
        strategy=record.strategy,
        data=record.data,
        seed=record.seed,
        mirrored=record.mirrored,
    )


def source_from_backbone(
    backbone: str, weights: str, calibration: Path | None, imgsz: int | None, needs_calibration: bool
) -> ExportSource:
    """A pretrained backbone with the classes its weights were trained on.

    Half of the pictures in `calibration` calibrate, the other half measures parity. Without any, parity is measured on
    scikit-learn's digits, which are at least real pictures.

    Raises:
        UsageError: INT8 is wanted and there is nothing to calibrate on, or the weights have no classes.
    """
    require_backbone(backbone)
    if needs_calibration and calibration is None:
        raise UsageError(
            "INT8 needs pictures like those the device will see, to calibrate on. "
            "Give a folder with --calibration DATA, or ask for --precisions fp32 only."
        )
    pretrained = load_pretrained(backbone, weights)
    if not pretrained.classes:
        raise UsageError(
            f"The weights '{weights}' have no classes of their own, so the model could not name anything. "
            "Train first (edgewright train DATA), then export the run."
        )
    if calibration is None:
        notice("no --calibration: parity is measured on scikit-learn's handwritten digits")
        digits = read_data("digits", seed=0)
        ours: tuple[Sample, ...] = ()
        checked = tuple(Sample(sample.source, _UNLABELLED, sample.name) for sample in digits.splits["test"])
    else:
        pictures = readable(_pictures(calibration))
        if len(pictures) < 2:
            raise DataError(f"'{calibration}' has {len(pictures)} readable pictures. Expected at least 2, better 200.")
        order = np.random.default_rng(0).permutation(len(pictures))
        half = len(pictures) // 2
        ours = tuple(pictures[index] for index in sorted(order[:half]))
        checked = tuple(pictures[index] for index in sorted(order[half:])[:_MOST_CHECKED])
    spec = preprocess_for(backbone, weights, imgsz, False)
    return ExportSource(
        name=backbone.replace(":", "-"),
        network=Network(pretrained.model, spec).eval(),
        labels=pretrained.classes,
        preprocess=spec,
        calibration=ours,
        training=(),
        checked={"val": checked},
        labelled=False,
        backbone=backbone,
        weights=pretrained.source,
        licence=pretrained.licence,
        strategy=None,
        data=None,
        seed=None,
    )


_MOST_CHECKED = 500
"""Parity of a pretrained backbone needs no more; its pictures have no labels to measure accuracy with."""


def _pictures(folder: Path) -> Sequence[Sample]:
    """Every picture below `folder`; of `folder/train` only, where there is one. Labels are those of the sub-folders."""
    if not folder.is_dir():
        raise DataError(f"No folder at '{folder}' to calibrate on. Expected a folder with pictures.")
    root = split_folder(folder, "train") or folder
    files = pictures_in(root)
    if not files:
        raise DataError(f"No pictures in '{root}'. Expected files ending in {', '.join(sorted(EXTENSIONS))}.")
    groups = {parent: number for number, parent in enumerate(sorted({path.parent for path in files}))}
    return [Sample(path, groups[path.parent], path.relative_to(folder).as_posix()) for path in files]
