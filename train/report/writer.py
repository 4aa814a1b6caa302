"""Every file of the run folder that is made for people."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.runtime.console import warn
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write
from edgewright.train.backbones.network import Network
from edgewright.train.data import ImageData
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.report.classes import MOST_BARS, plot_confusion, plot_per_class, plot_reliability
from edgewright.train.report.content import Facts, build_document
from edgewright.train.report.curves import plot_curves
from edgewright.train.report.document import Picture
from edgewright.train.report.html import to_html
from edgewright.train.report.layers import first_filters, plot_filters, plot_responses, responses
from edgewright.train.report.markdown import to_markdown
from edgewright.train.report.mistakes import Mistake, plot_mistakes, worst_mistakes
from edgewright.train.report.scores import class_scores
from edgewright.train.report.style import legible
from edgewright.train.run import Run, RunRecord

if TYPE_CHECKING:
    from edgewright.train.strategies import Outcome

__all__ = ["write_report"]


def write_report(folder: Path, record: RunRecord, data: ImageData, outcome: Outcome) -> None:
    """Write metrics.csv, TensorBoard events, the pictures, report.md and report.html.

    Args:
        folder: The run's, with `best.safetensors` in it.
        record: What becomes run.json.
        data: The samples of the run.
        outcome: Epochs and results; the logits are those of the network as written (after its temperature).
    """
    _write_metrics(folder, outcome.records, head_only=record.strategy == "head")
    _write_events(folder, outcome.records)
    split = "test" if "test" in outcome.results else "val"
    result = outcome.results[split]
    scores = class_scores(result.confusion(), data.classes, record.counts["train"])
    mistakes = worst_mistakes(result)
    pictures: dict[str, tuple[Picture, ...]] = {
        "course": _course(folder, record, outcome),
        "classes": (),
        "mistakes": (),
        "scores": (),
        "inside": tuple(_inside(folder, record, data, split, result, mistakes)),
    }
    plot_confusion(
        result.confusion(),
        data.classes,
        f"{split}: {result.top1:.1%} of {len(result.labels):,} right",
        folder / "confusion_matrix.png",
    )
    plot_per_class(scores, data.classes, folder / "per_class.png")
    bars = "" if len(scores) <= MOST_BARS else f" The {MOST_BARS} weakest of {len(scores):,} classes."
    pictures["classes"] = (
        Picture(
            "per_class.png",
            "precision and recall per class",
            f"Weakest F1 on top; in brackets {split} and training pictures; lines are 95 % intervals.{bars}",
        ),
        Picture(
            "confusion_matrix.png", "confusion matrix", "Rows are the true classes: what their pictures were taken for."
        ),
    )
    if mistakes:
        plot_mistakes(mistakes, data.splits[split], data.classes, record.preprocess, folder / "mistakes.png")
        caption = "The wrong answers with the highest scores, as the network saw them."
        pictures["mistakes"] = (Picture("mistakes.png", "worst mistakes", caption),)
    temperature = None if record.calibration is None else record.calibration.temperature
    plot_reliability(result, temperature, folder / "reliability.png")
    caption = (
        f"How often answers with a certain score are right, on {split}; bars on the dashed line mean what they say. "
        "Below, how many pictures got such a score."
    )
    pictures["scores"] = (Picture("reliability.png", "reliability diagram", caption),)
    document = build_document(Facts(folder, record, data, outcome, split, scores, mistakes, pictures))
    atomic_write(folder / "report.md", to_markdown(document))
    atomic_write(folder / "report.html", to_html(document, folder))


def _course(folder: Path, record: RunRecord, outcome: Outcome) -> tuple[Picture, ...]:
    if not outcome.records and not record.stages:
        return ()
    plot_curves(outcome.records, record.stages, record.strategy, folder / "curves.png")
    if record.strategy == "head":
        caption = "The head is solved for, not descended to; validation chose how strongly its weights are held back."
    elif record.stages:
        caption = "Each shade is a stage, named after what learned in it."
    else:
        caption = "Training top-1 is of augmented pictures, which are harder than validation's."
    return (Picture("curves.png", "training curves", caption),)


def _inside(
    folder: Path, record: RunRecord, data: ImageData, split: str, result: SplitResult, mistakes: tuple[Mistake, ...]
) -> list[Picture]:
    network = Run(folder, record).network()
    found = []
    filters = first_filters(network)
    if filters is not None:
        plot_filters(filters, folder / "filters.png")
        caption = (
            "The first layer's filters as colours, each stretched to its own range: edges, blobs and colours if it was "
            "pretrained, noise if it learned little."
        )
        found.append(Picture("filters.png", "filters of the first layer", caption))
    try:
        plotted = _plot_stages(network, folder, record, data, split, result, mistakes)
    except UsageError as error:
        # The network itself is fine: only this picture needs to take it apart.
        warn(f"no picture of the stages: {str(error).splitlines()[0]}")
        return found
    if plotted:
        caption = (
            "What early, middle and late stages respond to: the four channels with the largest mean activation, each "
            "stretched to its own range. Right: where the evidence for the answer lies (Grad-CAM)."
        )
        found.append(Picture("stages.png", "responses of the stages", caption))
    else:
        warn(f"no picture of the stages: {record.backbone} has no feature maps to show at this size")
    return found


def _plot_stages(
    network: Network,
    folder: Path,
    record: RunRecord,
    data: ImageData,
    split: str,
    result: SplitResult,
    mistakes: tuple[Mistake, ...],
) -> bool:
    """A typical right answer (of median margin) and the worst mistake, where there are such."""
    names, samples = legible(data.classes, 14), data.splits[split]
    chosen = []
    right = (result.predicted == result.labels).nonzero()[0]
    if len(right):
        margins = result.logits[right].max(axis=1)
        index = int(right[margins.argsort(kind="stable")[len(right) // 2]])
        chosen.append((f"right: {names[result.labels[index]]}", samples[index]))
    if mistakes:
        chosen.append((f"wrong: is {names[mistakes[0].true]}", samples[mistakes[0].index]))
    found = responses(network, chosen, record.preprocess)
    if found:
        plot_responses(found, names, folder / "stages.png")
    return bool(found)


def _write_metrics(folder: Path, records: tuple[EpochRecord, ...], *, head_only: bool) -> None:
    names = {field.name: field.name for field in fields(EpochRecord)}
    if head_only:
        # A head is solved for: what changes from row to row is how strongly its weights are held back.
        names["lr"] = "penalty"
    rows = [{names[key]: value for key, value in asdict(record).items()} for record in records]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(names.values()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", buffer.getvalue())


def _write_events(folder: Path, records: tuple[EpochRecord, ...]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, record in enumerate(records, start=1):
            for name in ("train_loss", "train_top1", "val_top1"):
                writer.add_scalar(name, getattr(record, name), step)
