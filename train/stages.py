"""What `auto` and `--compare` tried, stage by stage, as the run records it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["StageRecord"]


class StageRecord(BaseModel):
    """One attempt: a part of the network trained, and what it was worth.

    Attributes:
        name: What learned, such as 'head', 'top 2 of 6 stages', 'all'.
        trained_stages: Stages that learned, counted from the head down; 0 for the head alone.
        epochs: Passes over the training split in this attempt; 0 for a head that was solved for.
        val_top1: Share of validation named right at its end.
        test_top1: The same on the test split, where it was measured.
        gain: `val_top1` less that of the best attempt before it; 0 for the first.
        noise: How far two equally good networks may differ on this validation split by chance alone.
        seconds: Since the run began, at the end of this attempt.
        kept: Whether the run went on from it.
        why: The decision in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    trained_stages: int
    epochs: int
    val_top1: float
    test_top1: float | None
    gain: float
    noise: float
    seconds: float
    kept: bool
    why: str
