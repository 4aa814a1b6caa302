"""`auto`: ever more of the network learns, from the top down, while validation improves beyond noise.

It starts with the head, solved for on cached features. Then the top stage learns too, then the upper half, then
everything, each going on from the best so far and earlier layers at lower rates (gradual unfreezing: Howard and Ruder,
"Universal Language Model Fine-tuning", 2018). All levels but the last are short trials. Two in a row that are no better
than the best before them, and were not rising any more, end it, unless there is a budget, which is there to be used.
Every decision is recorded with its figures.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgewright.runtime.console import notice
from edgewright.runtime.files import atomic_write
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.stages import StageRecord
from edgewright.train.strategies.head import solve_head
from edgewright.train.strategies.job import Job, Outcome
from edgewright.train.strategies.rates import stage_names
from edgewright.train.strategies.tuning import closing_seconds, evaluate, tune

__all__ = ["Verdict", "gain_and_noise", "levels", "train_auto", "verdict"]

_TRIAL_SHARE = 0.08
"""Part of the remaining budget that a trial of one level may take."""

_TRIAL_OF_HEAD = 3.0
"""What two epochs of a trial take, about, in times of what the head took; a shorter trial would tell nothing."""

_GENTLE = 0.5
"""Rates of an attempt that goes on from one that has learned already, so that this is not thrown away first."""

_TRIAL_STEPS = 40
"""A trial has at least so many batches: with fewer nothing can be learnt about a small dataset."""


def gain_and_noise(before: SplitResult, after: SplitResult) -> tuple[float, float]:
    """How much more `after` names right than `before` of the same pictures, and the standard error of that.

    The answers are paired: what counts are the pictures on which the two differ (as in McNemar's test, 1947).
    """
    change = (after.predicted == after.labels).astype(np.int64) - (before.predicted == before.labels)
    # One picture is the least that a difference can be told by.
    noise = max(1.0, math.sqrt(np.count_nonzero(change))) / len(change)
    return float(change.mean()), noise


def levels(stages: int) -> list[int]:
    """How many stages learn at each level, for a network of `stages`: the top one, the upper half, all."""
    return sorted({1, math.ceil(stages / 2), stages})


def train_auto(job: Job) -> Outcome:
    """Strategy `auto`."""
    total = len(stage_names(job)) - 1
    story = _Story(job, total)
    story.head()
    if not job.pretrained:
        notice("auto: a network that starts from random is trained as a whole or not at all")
    misses = 0
    for depth in levels(total) if job.pretrained else [total]:
        misses = misses + 1 if story.attempt(depth, trial=depth < total) is Verdict.MISS else 0
        if misses == 2 and job.deadline is None:
            notice("auto: stops here; deeper layers have not helped twice")
            break
    if 0 < story.best.trained_stages < total:
        story.attempt(story.best.trained_stages, trial=False)
    best = story.best
    notice(f"auto: keeps '{best.name}', val top-1 {best.val_top1:.4f}")
    story.load(story.best_key)
    return Outcome(
        tuple(story.epochs()),
        evaluate(job, story.val(story.best_key)),
        f"auto: {best.name} learned",
        best.trained_stages,
        total,
        tuple(attempt.record.model_copy(update={"kept": attempt.key == story.best_key}) for attempt in story.attempts),
    )


class Verdict(Enum):
    """What an attempt tells of going deeper."""

    BETTER = "better beyond noise"
    RISING = "no better beyond noise, but still rising"
    MISS = "no better beyond noise"
    NO_TIME = "no time to try"


def verdict(gain: float, noise: float, epochs: Sequence[EpochRecord]) -> Verdict:
    """Of a trial's `gain` over the best before it, and of its epochs.

    The first steps spoil a solved head before they improve on it, so a short trial that ends lower can still be on its
    way up: then it says nothing against deeper layers.
    """
    if gain > noise:
        return Verdict.BETTER
    rise = epochs[-1].val_top1 - epochs[0].val_top1
    return Verdict.RISING if rise > noise else Verdict.MISS


class _Attempt(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    record: StageRecord
    epochs: list[EpochRecord]


class _Progress(BaseModel):
    """`last/auto.json`: what an interrupted run need not do again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: list[_Attempt]


class _Story:
    """The attempts so far, in memory and on disk. Each goes on from the best so far."""

    def __init__(self, job: Job, total: int) -> None:
        self.attempts: list[_Attempt] = []
        self._job, self._total = job, total
        self._folder = job.folder / "last"
        self._path = self._folder / "auto.json"
        self._closing_s: float | None = None
        if job.processes.is_main and self._path.is_file():
            self.attempts = _Progress.model_validate_json(self._path.read_text()).attempts
        # What the first process finds, before it goes on: a late one would take what it has just written for done.
        self.attempts = job.processes.agree(self.attempts)
        if self.attempts:
            job.started = time.monotonic() - self.attempts[-1].record.seconds

    @property
    def best_key(self) -> str:
        """Of the attempt with the best validation; of equals the first, which trained least."""
        return max(self.attempts, key=lambda attempt: attempt.record.val_top1).key

    @property
    def best(self) -> StageRecord:
        """Its record."""
        return next(attempt.record for attempt in self.attempts if attempt.key == self.best_key)

    def val(self, key: str) -> SplitResult:
        """What an attempt makes of validation."""
        return SplitResult(np.load(self._folder / f"{key}.val.npy"), self._job.labels("val"))

    def load(self, key: str) -> None:
        """Put an attempt's weights into the network."""
        self._job.load_weights(self._folder / f"{key}.safetensors")

    def epochs(self) -> list[EpochRecord]:
        """Of all attempts, numbered through."""
        found = [epoch for attempt in self.attempts for epoch in attempt.epochs]
        return [replace(epoch, epoch=number) for number, epoch in enumerate(found, start=1)]

    def head(self) -> None:
        """The head alone, which everything else starts from."""
        if self._known("head"):
            return
        _, results, _ = solve_head(self._job, self._folder / "start.safetensors")
        self._job.save_weights(self._folder / "head.safetensors")
        val = results["val"]
        counts = self._job.data.counts("train").values()
        why = f"{min(counts)} to {max(counts)} training pictures in a class"
        epoch = EpochRecord(0, 0.0, 0.0, val.top1, 0.0, self._job.seconds(), stage="head")
        self._record("head", "head", 0, [epoch], val, (0.0, 0.0), why)

    def attempt(self, depth: int, *, trial: bool) -> Verdict:
        """Let the top `depth` stages learn, going on from the best attempt so far."""
        job, everything = self._job, depth == self._total
        name = "all" if everything else f"top {depth} of {self._total} stages" + ("" if trial else ", longer")
        key = f"{depth}-trial" if trial else f"{depth}-full"
        if known := self._known(key):
            return verdict(known.record.gain, known.record.noise, known.epochs)
        deadline = self._deadline(name, trial=trial)
        if deadline is not None and job.processes.agree(deadline <= time.monotonic()):
            return Verdict.NO_TIME
        notice(f"auto: {name}")
        before = self.best_key
        self.load("start" if before == "head" else before)
        steps = max(1, len(job.data.splits["train"]) // job.config.batch)
        epochs = max(math.ceil(job.epochs / 4), math.ceil(_TRIAL_STEPS / steps)) if trial else job.epochs
        gentle = 1.0 if before == "head" else _GENTLE
        tuned = tune(job, None if everything else depth, name=key, epochs=epochs, deadline=deadline, gentle=gentle)
        if tuned is None:
            notice(f"auto: no time for '{name}'")
            return Verdict.NO_TIME
        gain, noise = gain_and_noise(self.val(before), tuned.val)
        found = verdict(gain, noise, tuned.records)
        self._record(key, name, depth, tuned.records, tuned.val, (gain, noise), found.value)
        return found

    def _deadline(self, name: str, *, trial: bool) -> float | None:
        """When the attempt is to be over; now, if it is not worth beginning."""
        if self._job.deadline is None:
            return None
        if self._closing_s is None:
            self._closing_s = closing_seconds(self._job)
        now, end = time.monotonic(), self._job.deadline - self._closing_s
        if not trial:
            return end
        share_s, trial_s = _TRIAL_SHARE * (end - now), _TRIAL_OF_HEAD * self.attempts[0].record.seconds
        if self._job.processes.agree(trial_s > share_s):
            notice(f"auto: '{name}' is not tried: that would take about {trial_s:.0f} s, too much of the budget")
            return now
        return now + share_s

    def _known(self, key: str) -> _Attempt | None:
        """The attempt of this name, if an interrupted run has made it."""
        return next((attempt for attempt in self.attempts if attempt.key == key), None)

    def _record(
        self,
        key: str,
        name: str,
        depth: int,
        epochs: list[EpochRecord],
        val: SplitResult,
        gain_and_noise: tuple[float, float],
        why: str,
    ) -> None:
        gain, noise = gain_and_noise
        record = StageRecord(
            name=name,
            trained_stages=depth,
            epochs=0 if depth == 0 else len(epochs),
            val_top1=val.top1,
            test_top1=None,
            gain=gain,
            noise=noise,
            seconds=self._job.seconds(),
            kept=False,
            why=why,
        )
        notice(f"auto: {name}: val top-1 {val.top1:.4f}, gain {gain:+.4f}, noise {noise:.4f}: {why}")
        self.attempts = [*self.attempts, _Attempt(key=key, record=record, epochs=epochs)]
        if self._job.processes.is_main:
            # In memory first: numpy's writer turns a full disk into an error that names neither cause nor file.
            logits = io.BytesIO()
            np.save(logits, val.logits)
            atomic_write(self._folder / f"{key}.val.npy", logits.getvalue())
            # Last: its presence means that the attempt's files are complete.
            atomic_write(self._path, _Progress(attempts=self.attempts).model_dump_json(indent=2))
        self._job.processes.wait()
