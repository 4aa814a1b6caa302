"""Samples to batches of pixels, decoded in threads, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from edgewright.runtime.images import read_image
from edgewright.runtime.parallel import bounded_map
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data.augment import Augmentation, augment
from edgewright.train.data.samples import Sample

__all__ = ["Batch", "Renderer", "batches", "epoch_order"]


@dataclass(frozen=True)
class Renderer:
    """Turns the sample at an index into uint8 pixels (height, width, 3).

    View 0 is what the device will see (`runtime.preprocess`); view v > 0 is the v-th augmentation of that sample.
    """

    samples: Sequence[Sample]
    spec: Preprocess
    augmentation: Augmentation
    seed: int

    def __call__(self, index: int, view: int) -> npt.NDArray[np.uint8]:
        """Pixels of one sample."""
        sample = self.samples[index]
        if view == 0:
            return preprocess(sample.source, self.spec)
        rng = np.random.default_rng((self.seed, view, index))
        return np.asarray(augment(read_image(sample.source), self.spec, self.augmentation, rng))


@dataclass(frozen=True)
class Batch:
    """`inputs` (N, ...), `labels` int64 (N), and the samples' indices int64 (N)."""

    inputs: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(count) that depends on (seed, epoch) alone."""
    return [int(index) for index in np.random.default_rng((seed, epoch)).permutation(count)]


def batches(
    renderer: Renderer, order: Iterable[int], *, view: int, batch: int, threads: int, drop_last: bool = False
) -> Iterator[Batch]:
    """Batches of uint8 pixels, shape (N, height, width, 3), in the given order; one batch is prepared ahead."""
    rendered = bounded_map(
        lambda index: (index, renderer(index, view)), order, threads=threads, in_flight=2 * batch + threads
    )
    while part := list(islice(rendered, batch)):
        if drop_last and len(part) < batch:
            return
        indices = [index for index, _ in part]
        yield Batch(
            torch.from_numpy(np.stack([pixels for _, pixels in part])),
            torch.tensor([renderer.samples[index].label for index in indices]),
            torch.tensor(indices),
        )
