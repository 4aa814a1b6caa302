"""What a dataset is: classes in a fixed order, and named samples in up to three splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SPLITS", "ImageData", "Sample", "Skipped"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture. `source` is its file or its encoded bytes; `name` is unique in the dataset.

    There may be millions: a file is better a string than a `Path`, which takes four times the memory.
    """

    source: str | Path | bytes
    label: int
    name: str

    def read_bytes(self) -> bytes:
        """The encoded picture."""
        return self.source if isinstance(self.source, bytes) else Path(self.source).read_bytes()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is in the dataset's folder and not in the dataset, and why."""

    file: str
    why: str


@dataclass(frozen=True)
class ImageData:
    """A dataset.

    Attributes:
        origin: The folder, the CSV file, or `digits`.
        classes: Class names; a label is an index into them.
        splits: `train`, `val` and `test`; `test` may be empty.
        skipped: Files that were left out.
        mirrored: Whether a mirror image still belongs to the same class (not so for digits).
        resize_to_crop: Whether the subject fills the picture, so that evaluation must not cut its border off.
    """

    origin: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Sample, ...]]
    skipped: tuple[Skipped, ...] = field(default=())
    mirrored: bool = True
    resize_to_crop: bool = False

    def counts(self, split: str) -> dict[str, int]:
        """Number of samples per class name in `split`."""
        found = Counter(sample.label for sample in self.splits[split])
        return {name: found.get(index, 0) for index, name in enumerate(self.classes)}
