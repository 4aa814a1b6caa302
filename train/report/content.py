"""What the report of a run says, built once; `markdown` and `html` only write it down."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.train.data import ImageData
from edgewright.train.evaluation import SplitResult
from edgewright.train.report.advice import next_steps
from edgewright.train.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Inline,
    Paragraph,
    Picture,
    Section,
    Strong,
    Table,
    Verbatim,
)
from edgewright.train.report.mistakes import Mistake
from edgewright.train.report.scores import ClassScore, most_confused, percent, wilson

if TYPE_CHECKING:
    from edgewright.train.run import RunRecord
    from edgewright.train.strategies import Outcome

__all__ = ["Facts", "build_document"]

_MOST_CLASSES = 50
_MOST_LEFT_OUT = 200
_MOST_PAIRS = 8
_NAMED_IN_TEXT = 12
_SPLIT_WORDS = {"test": "test", "val": "validation"}
_LIBRARIES = ("torchvision", "timm", "openvino", "numpy", "pillow")


@dataclass(frozen=True)
class Facts:
    """What a report is made of.

    Attributes:
        split: The split whose figures are reported.
        scores: Per class, weakest first.
        mistakes: The worst ones, as in their picture.
        pictures: By the section that they belong to: `course`, `classes`, `mistakes`, `scores`, `inside`.
    """

    folder: Path
    record: RunRecord
    data: ImageData
    outcome: Outcome
    split: str
    scores: tuple[ClassScore, ...]
    mistakes: tuple[Mistake, ...]
    pictures: dict[str, tuple[Picture, ...]]

    @property
    def result(self) -> SplitResult:
        """Of the reported split."""
        return self.outcome.results[self.split]


def build_document(facts: Facts) -> Document:
    """Every section that has something to say."""
    steps = next_steps(
        facts.record, facts.split, facts.outcome.results, facts.outcome.records, facts.scores, facts.folder
    )
    sections = [
        Section("Summary", tuple(_summary(facts))),
        Section("What to do next", (Bullets(steps),)),
        Section("What was tried", tuple(_stages(facts))),
        Section("How training went", facts.pictures["course"]),
        Section(f"Classes, on {_SPLIT_WORDS[facts.split]}", tuple(_classes(facts))),
        Section("Mistakes", tuple(_mistakes(facts))),
        Section("What a score means", facts.pictures["scores"]),
        Section("Inside the network", facts.pictures["inside"]),
        Section("Left out", tuple(_left_out(facts.data))),
        Section("The run", tuple(_run(facts))),
    ]
    return Document(facts.record.name, tuple(section for section in sections if section.blocks))


def _summary(facts: Facts) -> list[Block]:
    record, result, split = facts.record, facts.result, _SPLIT_WORDS[facts.split]
    count, right = len(result.labels), int((result.predicted == result.labels).sum())
    low, high = wilson(right, count)
    names: list[Inline] = []
    for name in record.classes[:_NAMED_IN_TEXT]:
        names += [", " if names else "", Code(name)]
    more = len(record.classes) - _NAMED_IN_TEXT
    trained = (
        Code(record.backbone),
        f", starting from {record.weights}, learned to tell {len(record.classes)} classes apart (",
        *names,
        f" and {more:,} more" if more > 0 else "",
        f") from {len(facts.data.splits['train']):,} pictures in {_duration(record.seconds)}. ",
        "Strategy ",
        Code(record.strategy),
        f": {record.note}.",
    )
    largest = result.confusion().sum(axis=1)
    measured: tuple[Inline, ...] = (
        Strong(f"{right:,} of {count:,} {split} pictures are named right: {percent(result.top1)}"),
        f" (95 % interval for other pictures of the same kind: {percent(low)} to {percent(high)}). Always answering ",
        Code(record.classes[int(largest.argmax())]),
        f" would be right for {percent(largest.max() / count)}.",
        ""
        if facts.split == "test"
        else " There is no test split; validation also chose this network, which flatters it.",
    )
    blocks: list[Block] = [Paragraph(measured), Paragraph(trained)]
    if record.calibration is not None:
        blocks.append(Paragraph((_calibration_line(facts),)))
    weak = [score for score in facts.scores if score.f1 is not None and score.f1 < 1][:3]
    if weak:
        parts: list[Inline] = ["Weakest: "]
        for number, score in enumerate(weak):
            parts += [", " if number else "", Code(score.name), f" ({score.right} of its {score.count} found"]
            parts.append(
                f", {percent(score.precision)} of such answers right)" if score.predicted else ", never answered)"
            )
        pair = most_confused(result.confusion(), record.classes, 1)[0]
        parts += [". The commonest mistake: ", Code(pair.true), " taken for ", Code(pair.said)]
        parts.append(f", {_times(pair.count)}.")
        blocks.append(Paragraph(tuple(parts)))
    return blocks


def _calibration_line(facts: Facts) -> str:
    found = facts.record.calibration
    assert found is not None
    where = (
        "measured on test"
        if found.split == "test"
        else "measured on the same validation split, for want of a test split"
    )
    return (
        f"A score of 80 % should be right 80 % of the time. A temperature of {found.temperature:.2f}, fitted on "
        f"validation and part of the network now, took the calibration error from {percent(found.ece_before)} to "
        f"{percent(found.ece_after)} and the negative log likelihood from {found.nll_before:.3f} to {found.nll_after:.3f} "
        f"({where}). It changes no answer."
    )


def _stages(facts: Facts) -> list[Block]:
    stages = facts.record.stages
    if not stages:
        return []
    rows = tuple(
        (
            Code(stage.name),
            str(stage.epochs) if stage.epochs else "–",
            percent(stage.val_top1),
            f"{100 * stage.gain:+.1f}" if number else "–",
            f"{100 * stage.noise:.1f}",
            percent(stage.test_top1),
            _duration(stage.seconds),
            "yes" if stage.kept else "no",
        )
        for number, stage in enumerate(stages)
    )
    columns = ("what learned", "epochs", "validation", "gain, points", "noise, points", "test", "done after", "kept")
    reasons = Bullets(tuple((Code(stage.name), f": {stage.why}") for stage in stages))
    return [Table(columns, rows), reasons]


def _classes(facts: Facts) -> list[Block]:
    shown = facts.scores[:_MOST_CLASSES]
    rows = tuple(
        (
            score.name,
            f"{score.train:,}",
            f"{score.count:,}",
            percent(score.precision),
            percent(score.recall),
            percent(score.f1),
        )
        for score in shown
    )
    split = _SPLIT_WORDS[facts.split]
    columns = ("class, weakest first", "training pictures", f"{split} pictures", "precision", "recall", "F1")
    blocks: list[Block] = [Table(columns, rows)]
    if len(facts.scores) > len(shown):
        left = len(facts.scores) - len(shown)
        blocks.append(Paragraph((f"The {len(shown)} weakest classes; {left:,} better ones are left out.",)))
    return [*blocks, *facts.pictures["classes"]]


def _mistakes(facts: Facts) -> list[Block]:
    if not facts.mistakes:
        return [Paragraph(("There is none on this split.",))]
    record, samples = facts.record, facts.data.splits[facts.split]
    pairs = most_confused(facts.result.confusion(), record.classes, _MOST_PAIRS)
    confused = Table(
        ("true class", "taken for", "times"),
        tuple((pair.true, pair.said, str(pair.count)) for pair in pairs),
        left=2,
    )
    worst = Table(
        ("file", "true class", "taken for", "score"),
        tuple(
            (
                Code(samples[item.index].name),
                record.classes[item.true],
                record.classes[item.said],
                f"{percent(item.score, 0)}",
            )
            for item in facts.mistakes
        ),
        left=3,
    )
    return [Paragraph(("The commonest:",)), confused, *facts.pictures["mistakes"], worst]


def _left_out(data: ImageData) -> list[Block]:
    if not data.skipped:
        return []
    shown = data.skipped[:_MOST_LEFT_OUT]
    items = tuple((Code(item.file), f": {item.why}") for item in shown)
    blocks: list[Block] = [Paragraph((f"{_files(len(data.skipped))} of the folder took no part:",)), Bullets(items)]
    if len(data.skipped) > len(shown):
        blocks.append(
            Paragraph((f"and {len(data.skipped) - len(shown):,} more, all of them in ", Code("skipped.csv"), "."))
        )
    return blocks


def _run(facts: Facts) -> list[Block]:
    record, spec = facts.record, facts.record.preprocess
    splits = ", ".join(f"{len(samples):,} {split}" for split, samples in facts.data.splits.items())
    rows: tuple[tuple[str, Inline], ...] = (
        ("data", Code(record.data)),
        ("pictures", splits),
        ("backbone", Code(record.backbone)),
        (
            "weights",
            record.weights if record.weights_licence is None else f"{record.weights} ({record.weights_licence})",
        ),
        ("input", f"{spec.crop} x {spec.crop} pixels, the middle of a picture whose shorter side is {spec.resize}"),
        ("validation top-1", f"{record.val_top1:.4f}"),
        ("test top-1", "–" if record.test_top1 is None else f"{record.test_top1:.4f}"),
        ("best epoch", "–" if record.best_epoch is None else str(record.best_epoch)),
        ("time", _duration(record.seconds)),
        ("finished", record.finished_at),
        ("versions", _versions(record)),
    )
    blocks: list[Block] = [Table(("", ""), rows, left=2)]
    config = facts.folder / "config.yaml"
    if config.is_file():
        blocks += [
            Paragraph(("The whole configuration, ", Code("config.yaml"), ":")),
            Verbatim(config.read_text(), "yaml"),
        ]
    return blocks


def _versions(record: RunRecord) -> str:
    found = [f"edgewright {record.edgewright}", f"torch {record.torch}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
