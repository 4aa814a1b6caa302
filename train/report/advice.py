"""What to do next, from what was measured; only what the figures bear out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.report.document import Code, Inline
from edgewright.train.report.scores import ClassScore, most_confused, percent, wilson

if TYPE_CHECKING:
    from edgewright.train.run import RunRecord

__all__ = ["next_steps"]

_WIDE = 0.1
"""An interval wider than this cannot tell a good network from a middling one."""

_OVERFITTED = 0.1

_WEAK = 0.8


def next_steps(
    record: RunRecord,
    split: str,
    results: dict[str, SplitResult],
    records: Sequence[EpochRecord],
    scores: Sequence[ClassScore],
    folder: Path,
) -> tuple[tuple[Inline, ...], ...]:
    """Items of running text, the most useful first; the last is always the export."""
    result = results[split]
    items = [
        *_about_the_measurement(result, results, split, record.data),
        *_about_classes(scores, record.classes, result),
        *_about_fitting(record, records),
    ]
    out = f"{folder.name}-bundle"
    command = shlex.join(["edgewright", "export", str(folder), "--out", out])
    return (*items, ("Make it run elsewhere, checked against this network: ", Code(command), "."))


def _about_the_measurement(
    result: SplitResult, results: dict[str, SplitResult], split: str, data: str
) -> list[tuple[Inline, ...]]:
    count, right = len(result.labels), int((result.predicted == result.labels).sum())
    low, high = wilson(right, count)
    items: list[tuple[Inline, ...]] = []
    if split != "test":
        items.append(
            (
                "Hold back some pictures in ",
                Code("test/"),
                ": validation chose this network, so it flatters it; a test split does not.",
            )
        )
    if high - low > _WIDE:
        items.append(
            (
                f"Measure on more pictures: {count} leave it open whether the truth is {percent(low, 0)} or {percent(high, 0)}.",
            )
        )
    if split == "test":
        val = results["val"]
        val_right = int((val.predicted == val.labels).sum())
        if wilson(val_right, len(val.labels))[0] > high:
            items.append(
                (
                    f"Look for what sets the test split apart: validation is right {percent(val.top1)} of the time, test "
                    f"{percent(result.top1)}, more than chance explains. ",
                    Code(shlex.join(["edgewright", "data", "check", data])),
                    " finds pictures that training and validation share.",
                )
            )
    return items


def _about_classes(
    scores: Sequence[ClassScore], classes: Sequence[str], result: SplitResult
) -> list[tuple[Inline, ...]]:
    items: list[tuple[Inline, ...]] = []
    usual = median(score.train for score in scores)
    few = [score for score in scores if score.f1 is not None and score.f1 < _WEAK and score.train < 0.6 * usual][:3]
    if few:
        names = _listed([(Code(score.name), f" ({score.train})") for score in few])
        items.append(("Add training pictures of ", *names, f": weak, and far fewer than the usual {usual:.0f}."))
    pairs = most_confused(result.confusion(), classes, 1)
    mistakes = int((result.predicted != result.labels).sum())
    if pairs and pairs[0].count >= max(3, 0.1 * mistakes):
        pair = pairs[0]
        items.append(
            (
                "Look at the pictures of ",
                Code(pair.true),
                " that were taken for ",
                Code(pair.said),
                f" ({pair.count} of {mistakes} mistakes): are they labelled alike by everybody, and does the "
                "picture show the difference?",
            )
        )
    return items


def _about_fitting(record: RunRecord, records: Sequence[EpochRecord]) -> list[tuple[Inline, ...]]:
    items: list[tuple[Inline, ...]] = []
    if not records:
        return items
    best = max(records, key=lambda epoch: (epoch.val_top1, -epoch.epoch))
    if record.strategy == "head":
        items.append(
            ("Let deeper layers learn too, while that helps: ", Code("--strategy auto"), " starts from this very head.")
        )
    elif best.train_top1 - best.val_top1 > _OVERFITTED:
        items.append(
            (
                f"Training is right {percent(best.train_top1, 0)} of the time, validation {percent(best.val_top1, 0)}: it learned "
                "pictures by heart. More pictures help most; ",
                Code("--augment trivial"),
                " or ",
                Code("--mixup 0.4"),
                " make more of those there are.",
            )
        )
    elif len(records) > 1 and best is records[-1] and record.strategy != "auto":
        items.append(("It was still getting better when it ended: give it more ", Code("--epochs"), "."))
    return items


def _listed(names: Sequence[tuple[Inline, ...]]) -> list[Inline]:
    """`a, b and c` of parts."""
    parts: list[Inline] = []
    for number, name in enumerate(names):
        if number:
            parts.append(" and " if number == len(names) - 1 else ", ")
        parts += name
    return parts
