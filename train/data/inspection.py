"""Everything about a dataset that is worth knowing before training on it. It only looks; what to do is the reader's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.runtime.console import track
from edgewright.runtime.errors import DataError
from edgewright.runtime.parallel import available_cores, bounded_map
from edgewright.train.data.advice import Group, class_counts, class_warnings, file_warnings, group_warnings, refusals
from edgewright.train.data.duplicates import same_content, same_look
from edgewright.train.data.fingerprint import THUMBNAIL, Fingerprint, fingerprint
from edgewright.train.data.listing import UNSPLIT
from edgewright.train.data.reading import list_data
from edgewright.train.data.samples import Sample

__all__ = ["Inspection", "inspect_data"]

_TINY = 32
"""Pixels of the shorter side, below which little can be seen."""

_ELONGATED = 4.0
"""Longer by shorter side, above which the usual central crop loses most of a picture."""


@dataclass(frozen=True)
class Inspection:
    """What was found; `duplicates` lie within one split each, `leaks` across splits."""

    origin: str
    images: int
    splits: Mapping[str, Mapping[str, int]]
    corrupt: tuple[tuple[str, str], ...]
    duplicates: tuple[Group, ...]
    leaks: tuple[Group, ...]
    unusual: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    @property
    def classes(self) -> dict[str, int]:
        """Pictures of each class in all splits."""
        total: Counter[str] = Counter()
        for counts in self.splits.values():
            total.update(counts)
        return dict(total)

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "data": self.origin,
            "images": self.images,
            "classes": self.classes,
            "splits": {split: dict(counts) for split, counts in self.splits.items()},
            "corrupt": [{"file": file, "why": why} for file, why in self.corrupt],
            "duplicates": [
                {"files": list(group.files), "kind": group.kind, "split": group.splits[0], "labels": list(group.labels)}
                for group in self.duplicates
            ],
            "leaks": [
                {
                    "files": list(group.files),
                    "kind": group.kind,
                    "splits": list(group.splits),
                    "labels": list(group.labels),
                }
                for group in self.leaks
            ],
            "unusual": [{"file": file, "what": what} for file, what in self.unusual],
            "skipped": [{"file": file, "why": why} for file, why in self.skipped],
            "warnings": list(self.warnings),
        }


def inspect_data(origin: str, *, data_root: str | Path | None = None) -> Inspection:
    """Read every picture of DATA once, in threads, and compare all with all.

    A picture leaves about 400 bytes behind, however large it is.

    Raises:
        DataError: there is no such data, or not one picture in it.
    """
    problems: list[str] = []
    listing = list_data(origin, problems.append, data_root=data_root)
    members = [(split, sample) for split, samples in listing.splits.items() for sample in samples]
    if not members:
        raise DataError(problems[0] if problems else f"No pictures in '{origin}'.")
    looks = _Looks(len(members))
    samples = [sample for _, sample in members]
    looked = bounded_map(fingerprint, samples, threads=available_cores(), in_flight=64)
    for index, look in enumerate(track(looked, "looking at pictures", len(samples))):
        looks.add(index, samples[index].name, look)
    groups = _groups(looks, members, listing.classes)
    unusual = looks.unusual()
    skipped = tuple((item.file, item.why) for item in listing.skipped)
    warnings = [
        *refusals(listing, problems),
        *class_warnings(listing),
        *group_warnings(groups, unsplit=UNSPLIT in listing.splits),
        *file_warnings("cannot be read", [file for file, _ in looks.corrupt]),
    ]
    for found in (unusual, skipped):
        for what in dict.fromkeys(what for _, what in found):
            warnings += file_warnings(what, [file for file, why in found if why == what])
    return Inspection(
        origin=listing.origin,
        images=len(members),
        splits={split: class_counts(samples, listing.classes) for split, samples in listing.splits.items()},
        corrupt=tuple(looks.corrupt),
        duplicates=_within_splits(groups),
        leaks=tuple(group for group in groups if len(set(group.splits)) > 1),
        unusual=unusual,
        skipped=skipped,
        warnings=tuple(warnings),
    )


class _Looks:
    """The fingerprints of a dataset in arrays: 100,000 of them take 35 MB."""

    def __init__(self, count: int) -> None:
        self.digests = np.zeros((count, 32), dtype=np.uint8)
        self.hashes = np.zeros(count, dtype=np.uint64)
        self.mirrored = np.zeros(count, dtype=np.uint64)
        self.details = np.zeros((count, THUMBNAIL, THUMBNAIL), dtype=np.int8)
        self.readable = np.zeros(count, dtype=bool)
        self.comparable = np.zeros(count, dtype=bool)
        self.corrupt: list[tuple[str, str]] = []
        self._odd: list[tuple[str, str]] = []
        self._tiny: list[tuple[str, str]] = []
        self._grey: tuple[list[str], list[str]] = ([], [])

    def add(self, index: int, name: str, look: Fingerprint | str) -> None:
        if isinstance(look, str):
            self.corrupt.append((name, look))
            return
        self.readable[index] = True
        self.digests[index] = np.frombuffer(look.digest, dtype=np.uint8)
        self.hashes[index] = look.phash
        self.mirrored[index] = look.mirrored
        self.details[index] = look.detail
        self._odd += [(name, what) for what in look.oddities]
        if look.orientation != 1:
            self._odd.append((name, "turned by its EXIF orientation"))
        short, long = sorted((look.width, look.height))
        # A smaller one has no detail of its own at the size of the thumbnail; only equal pixels say something.
        self.comparable[index] = short >= THUMBNAIL
        if short < _TINY:
            self._tiny.append((name, f"smaller than {_TINY} pixels"))
        if long > _ELONGATED * short:
            self._odd.append((name, f"more than {_ELONGATED:g} times as long as wide"))
        self._grey[look.grey].append(name)

    def unusual(self) -> tuple[tuple[str, str], ...]:
        """(name, what) of every picture that differs from most; what most pictures are is not unusual."""
        readable = int(self.readable.sum())
        tiny = self._tiny if 2 * len(self._tiny) <= readable else []
        colour, grey = self._grey
        if len(grey) <= len(colour):
            mixed = [(name, "grey among pictures in colour") for name in grey]
        else:
            mixed = [(name, "in colour among grey pictures") for name in colour]
        return (*self._odd, *tiny, *mixed)


def _groups(looks: _Looks, members: Sequence[tuple[str, Sample]], classes: Sequence[str]) -> list[Group]:
    """Exact groups, then near ones; of equal pictures only one is compared with the others, and brings all of them."""
    readable = np.flatnonzero(looks.readable)
    exact = [[int(readable[one]) for one in group] for group in same_content(looks.digests[readable])]
    copies = {group[0]: group for group in exact}
    repeated = {index for group in exact for index in group[1:]}
    single = np.array([one for one in np.flatnonzero(looks.comparable) if one not in repeated], dtype=np.int64)
    near = [
        sorted(copy for one in group for copy in copies.get(int(single[one]), [int(single[one])]))
        for group in same_look(looks.hashes[single], looks.mirrored[single], looks.details[single])
    ]

    def group(indices: Sequence[int], kind: str) -> Group:
        chosen = [members[index] for index in indices]
        return Group(
            tuple(sample.name for _, sample in chosen),
            tuple(classes[sample.label] for _, sample in chosen),
            tuple(split for split, _ in chosen),
            kind,
        )

    return [*(group(one, "exact") for one in exact), *(group(one, "near") for one in near)]


def _within_splits(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The parts of each group that lie in one split."""
    parts = []
    for group in groups:
        for split in dict.fromkeys(group.splits):
            chosen = [index for index, one in enumerate(group.splits) if one == split]
            if len(chosen) > 1:
                files, labels = ([values[index] for index in chosen] for values in (group.files, group.labels))
                parts.append(Group(tuple(files), tuple(labels), (split,) * len(chosen), group.kind))
    return tuple(parts)
