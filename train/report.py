"""What a person reads after training: metrics.csv, TensorBoard events, pictures and report.md."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtime.files import atomic_write
from edgewright.train.data import ImageData
from edgewright.train.loop import EpochRecord
from edgewright.train.plots import plot_confusion, plot_curves, plot_mistakes

if TYPE_CHECKING:
    from edgewright.train.run import RunRecord
    from edgewright.train.strategies import Outcome

__all__ = ["write_report"]


def write_report(folder: Path, record: RunRecord, data: ImageData, outcome: Outcome) -> None:
    """Write every file of the run folder that is made for people."""
    _write_metrics(folder, outcome.records, head_only=record.strategy == "head")
    _write_events(folder, outcome.records)
    plot_curves(outcome.records, record.strategy == "head", folder / "curves.png")
    split = "test" if "test" in outcome.results else "val"
    result = outcome.results[split]
    plot_confusion(result, data.classes, split, folder / "confusion_matrix.png")
    mistakes = plot_mistakes(result, data.splits[split], data.classes, record.preprocess, folder / "mistakes.png")
    atomic_write(folder / "report.md", _markdown(record, data, outcome, split, mistakes))


def _write_metrics(folder: Path, records: tuple[EpochRecord, ...], *, head_only: bool) -> None:
    rows = [asdict(record) for record in records]
    if head_only:
        rows = [{("penalty" if key == "lr" else key): value for key, value in row.items()} for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", buffer.getvalue())


def _write_events(folder: Path, records: tuple[EpochRecord, ...]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for record in records:
            for name in ("train_loss", "train_top1", "val_top1"):
                writer.add_scalar(name, getattr(record, name), record.epoch)


def _markdown(record: RunRecord, data: ImageData, outcome: Outcome, split: str, mistakes: int) -> str:
    result = outcome.results[split]
    confusion = result.confusion()
    test = "–" if record.test_top1 is None else f"{record.test_top1:.4f}"
    lines = [
        f"# {record.name}",
        "",
        f"`{record.strategy}` on `{record.data}`: {record.note}.",
        "",
        "| | |",
        "|---|---|",
        f"| backbone | {record.backbone} |",
        f"| weights | {record.weights} |",
        f"| input | {record.preprocess.crop} px (shorter side {record.preprocess.resize}) |",
        f"| pictures | {', '.join(f'{len(data.splits[name])} {name}' for name in data.splits)} |",
        f"| left out | {len(data.skipped)} files |",
        f"| validation top-1 | {record.val_top1:.4f} |",
        f"| test top-1 | {test} |",
        f"| time | {record.seconds:.1f} s |",
        f"| seed | {record.seed} |",
        "",
        f"## Per class ({split})",
        "",
        "| class | training pictures | pictures | precision | recall |",
        "|---|---:|---:|---:|---:|",
    ]
    for index, name in enumerate(data.classes):
        predicted, true, right = confusion[:, index].sum(), confusion[index].sum(), confusion[index, index]
        precision = f"{right / predicted:.3f}" if predicted else "–"
        recall = f"{right / true:.3f}" if true else "–"
        lines.append(f"| {name} | {record.counts['train'][name]} | {true} | {precision} | {recall} |")
    off_diagonal = confusion - np.diag(np.diag(confusion))
    if mistakes:
        row, column = np.unravel_index(off_diagonal.argmax(), off_diagonal.shape)
        lines += [
            "",
            f"{mistakes} of {len(result.labels)} are wrong; most often `{data.classes[row]}` is taken for "
            f"`{data.classes[column]}` ({off_diagonal[row, column]} times).",
        ]
    lines += [
        "",
        "![curves](curves.png)",
        "",
        "![confusion matrix](confusion_matrix.png)",
        "",
        "![mistakes](mistakes.png)",
    ]
    if data.skipped:
        lines += ["", "## Left out", ""]
        lines += [f"- `{item.file}`: {item.why}" for item in data.skipped]
    return "\n".join(lines) + "\n"
