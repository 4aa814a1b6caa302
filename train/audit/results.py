"""What an audit is told to do, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgewright.train.audit.subject import Subject

__all__ = ["Attacked", "Audit", "AuditPlan", "Example", "RunAudit", "Transferred"]


@dataclass(frozen=True)
class AuditPlan:
    """What is done: `images` pictures at most, bounds `eps` of 255 in rising order, `steps` gradients per search."""

    runs: tuple[Path, ...]
    data: str
    images: int
    eps: tuple[int, ...]
    steps: int
    seed: int
    device: str


@dataclass(frozen=True)
class Attacked:
    """An attack by someone who knows the network itself (`fgsm`, `pgd`), or none at all (`noise`).

    `top1` is of all pictures; `success` is the share that became wrong of those that were right.
    """

    attack: str
    eps: int
    top1: float
    success: float | None


@dataclass(frozen=True)
class Transferred:
    """Examples made on the teacher, tried on a student.

    Attributes:
        attack: `scores` (away from what the teacher says) or `features` (towards a picture of another class).
        success: Share that became wrong, of the pictures that the student gets right.
        targeted_success: `features` only: share that became the other picture's class, where both were right before.
    """

    run: str
    strategy: str
    frozen: int
    stages: int
    teacher: str
    attack: str
    eps: int
    top1: float
    success: float | None
    targeted_success: float | None


@dataclass(frozen=True)
class Example:
    """One adversarial picture.

    Attributes:
        pixels: uint8, (height, width, 3).
        predicted: The class it is answered with.
        target: `features` only: row of the picture that it imitates.
    """

    attack: str
    eps: int
    pixels: torch.Tensor
    predicted: int
    target: int | None


@dataclass
class RunAudit:
    """All that was found about one run; filled while the audit goes on.

    `corruptions` maps a name to top-1 at the five strengths. `shown` is the row of the picture in the galleries, the
    first that the run gets right; `spoilt` are the answers to it, per corruption and strength.
    """

    subject: Subject
    top1: float
    right: torch.Tensor
    shown: int
    corruptions: dict[str, tuple[float, ...]]
    spoilt: dict[str, tuple[int, ...]]
    adversarial: list[Attacked]
    transfer: list[Transferred]
    skipped: list[tuple[str, str]]
    examples: list[Example]

    @property
    def attacks(self) -> list[Attacked | Transferred]:
        """All that was tried, from what knows nothing to what knows the run, then from the teacher."""
        return [*self.adversarial, *self.transfer]


@dataclass(frozen=True)
class Audit:
    """The whole result."""

    plan: AuditPlan
    pictures: int
    classes: tuple[str, ...]
    runs: tuple[RunAudit, ...]
    seconds: float
