"""Samples to batches of pixels, decoded in threads, with bounded memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from edgewright.runtime.images import read_image
from edgewright.runtime.parallel import available_cores, bounded_map
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
        least = self.spec.least_side
        if least is not None:
            # The smallest crop still has as many pixels.
            least = math.ceil(least / math.sqrt(self.augmentation.crop_scale))
        return np.asarray(augment(read_image(sample.source, least_side=least), self.spec, self.augmentation, rng))


@dataclass(frozen=True)
class Batch:
    """`inputs` (N, ...), `labels` int64 (N), the samples' indices int64 (N), and the cached row of the view shown."""

    inputs: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    view_row: int = 0


def epoch_order(labels: npt.NDArray[np.int64], seed: int, epoch: int, *, balanced: bool) -> npt.NDArray[np.int64]:
    """The samples of an epoch in random order, which depends on (labels, seed, epoch) alone.

    Args:
        labels: int64 (N).
        seed: The run's.
        epoch: From 1.
        balanced: Draw N samples with replacement, every class equally likely, instead of each sample once.
    """
    rng = np.random.default_rng((seed, epoch))
    if not balanced:
        return rng.permutation(len(labels))
    weights = 1.0 / np.bincount(labels)[labels]
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum())


def batches(
    renderer: Renderer,
    order: Sequence[int] | npt.NDArray[np.int64],
    *,
    view: int,
    batch: int,
    threads: int | None = None,
    view_row: int = 0,
) -> Generator[Batch, None, None]:
    """Batches of uint8 pixels, shape (N, height, width, 3), in the given order; one batch is prepared ahead."""
    threads = threads or available_cores()
    rendered = bounded_map(
        lambda index: (int(index), renderer(int(index), view)), order, threads=threads, in_flight=2 * batch + threads
    )
    with contextlib.closing(rendered):
        while part := list(islice(rendered, batch)):
            indices = [index for index, _ in part]
            yield Batch(
                torch.from_numpy(np.stack([pixels for _, pixels in part])),
                torch.tensor([renderer.samples[index].label for index in indices]),
                torch.tensor(indices),
                view_row,
            )
