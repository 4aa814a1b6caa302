"""Batches: the right pixels, labels and indices, in the order asked for, whatever thread made them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from edgewright.runtime.errors import ImageError
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Batch, Renderer, batches, epoch_order
from edgewright.train.data.samples import Sample

SPEC = Preprocess(resize=18, crop=16)


def samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
        found.append(Sample(buffer.getvalue(), number % 3, f"{number}.png"))
    return found


def renderer(members: Sequence[Sample], seed: int = 0) -> Renderer:
    return Renderer(members, SPEC, Augmentation(0.35, True, 0.2), seed)


def collect(count: int, order: Sequence[int], *, view: int = 0, batch: int = 4, threads: int = 2) -> list[Batch]:
    return list(batches(renderer(samples(count)), order, view=view, batch=batch, threads=threads))


# Views


def test_view_zero_is_what_the_device_sees() -> None:
    members = samples(3)
    for index, sample in enumerate(members):
        assert np.array_equal(renderer(members)(index, 0), preprocess(sample.source, SPEC))


def test_other_views_are_augmented() -> None:
    render = renderer(samples(1))
    assert len({render(0, view).tobytes() for view in range(5)}) == 5


def test_augmented_view_has_the_shape_of_the_clean_one() -> None:
    pixels = renderer(samples(1))(0, 1)
    assert (str(pixels.dtype), pixels.shape) == ("uint8", (16, 16, 3))


def test_view_follows_from_seed_view_and_index() -> None:
    assert np.array_equal(renderer(samples(2))(1, 7), renderer(samples(2))(1, 7))


def test_another_seed_gives_another_view() -> None:
    assert not np.array_equal(renderer(samples(1), seed=0)(0, 1), renderer(samples(1), seed=1)(0, 1))


def test_same_picture_twice_gets_two_views() -> None:
    render = renderer(samples(1) * 2)
    assert not np.array_equal(render(0, 1), render(1, 1))


# Order


def labels(count: int) -> npt.NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % 3


@pytest.mark.parametrize("count", [0, 1, 100])
def test_epoch_order_is_a_permutation(count: int) -> None:
    assert sorted(epoch_order(labels(count), seed=0, epoch=1, balanced=False)) == list(range(count))


@pytest.mark.parametrize("balanced", [False, True])
def test_epoch_order_follows_from_seed_and_epoch(balanced: bool) -> None:
    once, again = (epoch_order(labels(50), seed=3, epoch=2, balanced=balanced) for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize("balanced", [False, True])
def test_every_epoch_and_seed_has_its_own_order(balanced: bool) -> None:
    orders = {
        tuple(epoch_order(labels(50), seed, epoch, balanced=balanced)) for seed in range(3) for epoch in range(1, 4)
    }
    assert len(orders) == 9


def test_balanced_order_shows_every_class_equally_often() -> None:
    # 900, 90 and 10 samples; class 1 of four has none.
    uneven = np.repeat(np.array([0, 2, 3], dtype=np.int64), (900, 90, 10))
    order = epoch_order(uneven, seed=0, epoch=1, balanced=True)
    assert len(order) == len(uneven)
    shown = np.bincount(uneven[order], minlength=4)
    assert shown[1] == 0
    # A third of 1000 each, with a standard deviation of 15.
    assert np.abs(shown[[0, 2, 3]] - 1000 / 3).max() < 60
    # Inside a class, every sample is as likely as the others.
    assert len(set(order[uneven[order] == 0])) > 200


# Batches


def test_batch_is_uint8_images_with_int64_labels_and_indices() -> None:
    (batch,) = collect(4, range(4))
    assert (batch.inputs.dtype, tuple(batch.inputs.shape)) == (torch.uint8, (4, 16, 16, 3))
    assert batch.labels.dtype == batch.indices.dtype == torch.int64


def test_batches_follow_the_order() -> None:
    order = [5, 0, 3, 3, 1, 4]
    assert [index for batch in collect(6, order) for index in batch.indices.tolist()] == order


def test_pixels_and_labels_belong_to_the_indices() -> None:
    members = samples(6)
    for batch in collect(6, [4, 2, 0, 1, 5, 3]):
        for pixels, label, index in zip(batch.inputs, batch.labels.tolist(), batch.indices.tolist(), strict=True):
            assert label == members[index].label
            assert np.array_equal(pixels.numpy(), preprocess(members[index].source, SPEC))


def test_last_batch_holds_the_rest() -> None:
    assert [len(batch.labels) for batch in collect(10, range(10))] == [4, 4, 2]


def test_batches_know_the_row_of_their_view() -> None:
    source = batches(renderer(samples(3)), range(3), view=2, batch=2, threads=1, view_row=1)
    assert [batch.view_row for batch in source] == [1, 1]


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    source = batches(renderer(samples(12)), range(12), view=0, batch=2, threads=3)
    next(source)
    assert threading.active_count() > before
    source.close()
    assert threading.active_count() == before


def test_no_more_than_the_next_batch_is_prepared() -> None:
    taken = []

    def order() -> Iterator[int]:
        for index in range(100):
            taken.append(index)
            yield index % 4

    source = batches(renderer(samples(4)), order(), view=0, batch=5, threads=2)  # type: ignore[arg-type]
    next(source)
    # One batch handed out, one ahead, and what the threads hold.
    assert len(taken) <= 3 * 5 + 2
    source.close()


def test_no_samples_give_no_batches() -> None:
    assert collect(1, []) == []


def test_number_of_threads_does_not_change_a_pixel() -> None:
    alone, together = (
        torch.cat([batch.inputs for batch in collect(12, range(12), view=3, threads=threads)]) for threads in (1, 4)
    )
    assert torch.equal(alone, together)


def test_damaged_picture_stops_the_batches_with_its_error() -> None:
    members = [*samples(3), Sample(b"no picture", 0, "broken.png")]
    with pytest.raises(ImageError):
        list(batches(renderer(members), range(4), view=0, batch=2, threads=2))
