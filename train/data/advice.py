"""Sentences about a dataset: what is unfavourable, by how much, and what to do."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.runtime.errors import DataError
from edgewright.train.data.listing import UNSPLIT, Listing, divide
from edgewright.train.data.samples import Sample

__all__ = ["Group", "class_counts", "class_warnings", "file_warnings", "group_warnings", "refusals"]

_UNEVEN = 5.0
"""Largest by smallest class, above which accuracy begins to tell little about the small ones."""

_FEW = 10
"""Training pictures of a class, below which what is learnt of it is chance."""


@dataclass(frozen=True)
class Group:
    """Pictures that are the same.

    Attributes:
        files: Names of the pictures.
        labels: Their classes, in the same order.
        splits: The splits they are in, in the same order.
        kind: `exact`: equal pixels; `near`: the same picture, changed (another size, quality, brightness, mirrored).
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    kind: str


def class_counts(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    """Number of samples per class name."""
    found = Counter(sample.label for sample in samples)
    return {name: found.get(label, 0) for label, name in enumerate(classes)}


def refusals(listing: Listing, problems: Sequence[str]) -> list[str]:
    """What training would refuse, in its own words."""
    found = list(problems)
    if not found:
        try:
            divide(listing, seed=0, val_fraction=0.15, test_fraction=0.15)
        except DataError as error:
            found.append(str(error))
    return [f"training refuses this: {problem}" for problem in found]


def class_warnings(listing: Listing) -> list[str]:
    """About classes: their names, how many pictures each has, and in which splits."""
    learnt = next((split for split in (UNSPLIT, "train") if split in listing.splits), next(iter(listing.splits)))
    counts = class_counts(listing.splits[learnt], listing.classes)
    warnings = []
    alike: dict[str, list[str]] = defaultdict(list)
    for name in listing.classes:
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            # Escaped, because two Unicode forms of one name look the same.
            shown = ", ".join(ascii(name) for name in names)
            warnings.append(
                f"class names differ only by case, white space or Unicode form: {shown}; one class or several?"
            )
    most, fewest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] > _UNEVEN * counts[fewest]:
        ratio = f"{counts[most] / counts[fewest]:.1f} : 1" if counts[fewest] else f"{counts[most]:,} : 0"
        warnings.append(
            f"class imbalance {ratio}: {counts[most]:,} of '{most}', {counts[fewest]:,} of '{fewest}'. "
            "Collect more of the small ones, or train with --balance."
        )
    if few := [f"'{name}' ({count})" for name, count in counts.items() if count < _FEW]:
        warnings.append(f"too few pictures to learn from, fewer than {_FEW}: {_some(few)}")
    for split, samples in listing.splits.items():
        missing = [f"'{name}'" for name, count in class_counts(samples, listing.classes).items() if count == 0]
        if missing and split != learnt:
            warnings.append(f"no picture in the {split} split, so nothing is measured for: {_some(missing)}")
    return warnings


def group_warnings(groups: Sequence[Group], *, unsplit: bool) -> list[str]:
    """About copies within and across splits, and copies of different classes."""
    warnings = []
    if leaks := sum(len(set(group.splits)) > 1 for group in groups):
        warnings.append(
            f"leaks: {_pictures(leaks)} in more than one split, so accuracy is measured on what was learnt. "
            "Keep each in one split."
        )
    if duplicates := sum(len(set(group.splits)) < len(group.splits) for group in groups):
        risk = "; a random split can put copies on both sides" if unsplit else ""
        warnings.append(f"duplicates: {_pictures(duplicates)} more than once in a split{risk}.")
    for kind, what in (("exact", "the same picture has"), ("near", "near duplicates have")):
        if torn := [group for group in groups if group.kind == kind and len(set(group.labels)) > 1]:
            example = ", ".join(torn[0].files[:3])
            warnings.append(f"{what} different labels, {_times(len(torn))}; for example {example}")
    return warnings


def file_warnings(what: str, files: Sequence[str]) -> list[str]:
    """One line about all `files` that have something in common; none if there are none."""
    return [f"{_pictures(len(files))} {what}: {_some(files)}"] if files else []


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
