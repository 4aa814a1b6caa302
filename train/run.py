"""The run folder: what a training leaves behind, and how export reads it again."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file

from edgewright.runtime.errors import DataError, WeightsError
from edgewright.runtime.files import atomic_write
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone, drop_auxiliary
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.data import DIGITS, SPLITS, ImageData, Sample, Skipped, picture_root
from edgewright.train.data.digits import read_digits
from edgewright.train.stages import StageRecord
from edgewright.train.temperature import Calibration

__all__ = ["Run", "RunRecord", "read_run", "write_samples"]


class RunRecord(BaseModel):
    """`run.json`: the facts of a finished run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    name: str
    edgewright: str
    torch: str
    backbone: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    strategy: str
    note: str
    weights: str
    weights_licence: str | None
    data: str
    counts: dict[str, dict[str, int]]
    mirrored: bool
    resize_to_crop: bool
    seed: int
    best_epoch: int | None
    val_top1: float
    test_top1: float | None
    seconds: float
    finished_at: str
    train_px: int | None = None
    trained_stages: int | None = None
    stages_total: int | None = None
    precision: str = "fp32"
    processes: int = 1
    stages: tuple[StageRecord, ...] = ()
    calibration: Calibration | None = None

    @property
    def frozen_stages(self) -> int | None:
        """Stages below the trained ones; None where nothing was pretrained."""
        if self.trained_stages is None or self.stages_total is None:
            return None
        return self.stages_total - self.trained_stages


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    folder: Path
    record: RunRecord

    def network(self) -> Network:
        """The trained network, in eval mode, on the CPU."""
        backbone = build_backbone(self.record.backbone)
        drop_auxiliary(backbone)
        replace_head(backbone, len(self.record.classes))
        backbone.load_state_dict(load_file(self.folder / "best.safetensors"))
        return Network(backbone, self.record.preprocess).eval()

    def data(self) -> ImageData:
        """The very samples of the run, split as they were.

        Raises:
            DataError: a picture is no longer where it was.
        """
        splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
        digits = _digits_by_name() if self.record.data == DIGITS else None
        root = picture_root(self.record.data)
        index = {name: number for number, name in enumerate(self.record.classes)}
        with (self.folder / "samples.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in csv.DictReader(stream):
                name, label = row["file"], index[row["class"]]
                if digits is not None:
                    splits[row["split"]].append(Sample(digits[name], label, name))
                    continue
                path = os.path.join(root, name)  # noqa: PTH118
                if not os.path.isfile(path):  # noqa: PTH113
                    raise DataError(
                        f"The run '{self.folder}' was trained on '{path}', which is gone. Put the data back, "
                        "or, for export, give other training pictures with --calibration."
                    )
                splits[row["split"]].append(Sample(path, label, name))
        members = {split: tuple(samples) for split, samples in splits.items()}
        return ImageData(
            self.record.data, self.record.classes, members, (), self.record.mirrored, self.record.resize_to_crop
        )


def _digits_by_name() -> dict[str, bytes]:
    data = read_digits(seed=0, val_fraction=0.15, test_fraction=0.15)
    return {sample.name: sample.read_bytes() for split in SPLITS for sample in data.splits[split]}


def write_samples(data: ImageData, folder: Path) -> None:
    """Write `samples.csv` (split, class, file) and `skipped.csv` (file, why)."""
    rows = ((split, data.classes[sample.label], sample.name) for split in SPLITS for sample in data.splits[split])
    atomic_write(folder / "samples.csv", _csv(("split", "class", "file"), rows))
    atomic_write(folder / "skipped.csv", _csv(("file", "why"), ((item.file, item.why) for item in data.skipped)))


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    # A file name may hold bytes that are no UTF-8: Python reads them as lone surrogates, and so they go back.
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def read_skipped(folder: Path) -> tuple[Skipped, ...]:
    """The files that the run left out, and why."""
    with (folder / "skipped.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return tuple(Skipped(row["file"], row["why"]) for row in csv.DictReader(stream))


def read_run(folder: Path) -> Run:
    """Open a finished run.

    Raises:
        WeightsError: no such folder, not finished, or not written by this version.
    """
    path = folder / "run.json"
    if not path.is_file() or not (folder / "best.safetensors").is_file():
        raise WeightsError(
            f"No finished run at '{folder}'. Expected a folder with run.json and best.safetensors, "
            "as `edgewright train` writes it."
        )
    try:
        return Run(folder, RunRecord(**json.loads(path.read_text())))
    except (ValidationError, ValueError, TypeError) as error:
        raise WeightsError(f"'{path}' cannot be read: {str(error).splitlines()[0]}. Train again.") from error
