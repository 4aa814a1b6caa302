"""What a student inherits: examples made on the public teacher alone, and tried on the student.

B. Wang et al., "With Great Training Comes Great Vulnerability: Practical Attacks against Transfer Learning" (USENIX
Security 2018): whoever knows which public model a student was fine-tuned from, and up to which layer it stayed frozen,
needs no access to the student. A picture is changed until its features at that layer, computed with the public
weights, are those of a picture of another class; frozen layers then let the student see that class. They bound the
change by structural dissimilarity (DSSIM) and search for 2,000 steps; here the bound is L-infinity and the search as
short as that of the other attacks, so that all can be compared.

Beside it the plain way: away from what the teacher itself takes the picture for, by its own class scores.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgewright.runtime.errors import WeightsError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.audit.attacks import away_from, mimic, pgd
from edgewright.train.audit.subject import Subject
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, plan_stages, replace_head, split_at
from edgewright.train.backbones.weights import load_pretrained

__all__ = [
    "Teacher",
    "TeacherKey",
    "choose_targets",
    "feature_examples",
    "features_at",
    "read_teacher",
    "score_examples",
    "teacher_of",
]

_BATCH = 16


@dataclass(frozen=True)
class TeacherKey:
    """Which public model: a backbone, what `--weights` said, and the input it is given."""

    backbone: str
    weights: str
    preprocess: Preprocess

    @property
    def title(self) -> str:
        """For people."""
        path = Path(self.weights)
        return f"{self.backbone} ({path.name if path.suffix or path.is_dir() else self.weights})"


@dataclass(frozen=True)
class Teacher:
    """The public model, eval mode.

    Attributes:
        scores: uint8 or float pixels (N, height, width, 3) to logits of its own classes; None if it has none.
        plan: Where its body can be cut: as the students', because it carries a meaningless head as wide as theirs.
    """

    key: TeacherKey
    scores: Network | None
    plan: StagePlan


def teacher_of(subject: Subject, subjects: list[Subject]) -> TeacherKey | str:
    """The public model that `subject` comes from, or why there is none.

    A run that started from random weights gets the teacher of another of the `subjects` with the same backbone and the
    same pixels: it shows what such examples do to a student that inherited nothing.
    """
    record = subject.run.record
    if subject.weights != "none":
        return TeacherKey(record.backbone, subject.weights, record.preprocess)
    for other in subjects:
        theirs = other.run.record
        if (
            other.weights != "none"
            and theirs.backbone == record.backbone
            and (theirs.preprocess.resize, theirs.preprocess.crop, theirs.preprocess.interpolation)
            == (record.preprocess.resize, record.preprocess.crop, record.preprocess.interpolation)
        ):
            return TeacherKey(theirs.backbone, other.weights, theirs.preprocess)
    return (
        "trained from random weights, so it has no public teacher; audit it together with a fine-tuned run of the same "
        "backbone and input size to see what that one's teacher does to it"
    )


def read_teacher(key: TeacherKey, classes: int, device: torch.device) -> Teacher | str:
    """The public model, or why it cannot be had. `classes` is the number of the students' classes."""
    try:
        pretrained = load_pretrained(key.backbone, key.weights)
    except WeightsError as error:
        return str(error)
    body = copy.deepcopy(pretrained.model)
    replace_head(body, classes)
    scores = Network(pretrained.model, key.preprocess).eval().to(device) if pretrained.classes else None
    whole = Network(body, key.preprocess).eval()
    for network in (scores, whole):
        if network is not None:
            network.requires_grad_(False)
    side = key.preprocess.crop
    return Teacher(key, scores, plan_stages(whole, torch.zeros(1, side, side, 3, dtype=torch.uint8)))


def choose_targets(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """For every picture (N) the row of a random one of another class, int64 (N)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(labels), len(labels), generator=generator)
    known = labels.cpu()
    return order.masked_fill(known[:, None] == known[None, :], -1).argmax(1).to(labels.device)


def score_examples(network: nn.Module, pixels: torch.Tensor, eps: int, steps: int, seed: int) -> torch.Tensor:
    """Pictures that lead `network`, the teacher, away from what it took them for; uint8, shaped as `pixels`."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for part in torch.split(pixels, _BATCH):
        with torch.inference_mode():
            said = network(part).argmax(1)
        made.append(pgd(away_from(network, said.clone()), part, eps, steps=steps, generator=generator)[0])
    return torch.cat(made)


def features_at(teacher: Teacher, cut: str, device: torch.device) -> nn.Module:
    """Pixels (N, height, width, 3) to the value of the graph node `cut` by the teacher's weights."""
    features, _ = split_at(teacher.plan, cut)
    return features.eval().to(device)


def feature_examples(
    features: nn.Module, pixels: torch.Tensor, targets: torch.Tensor, eps: int, steps: int, seed: int
) -> torch.Tensor:
    """Pictures whose `features` are near those of their targets.

    Args:
        features: Of :func:`features_at`.
        pixels: uint8, (N, height, width, 3).
        targets: Rows of `pixels`, int64 (N).
        eps: Largest change of a pixel, of 255.
        steps: Gradients per picture.
        seed: For the random start.

    Returns:
        uint8, shaped as `pixels`.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for part, rows in zip(torch.split(pixels, _BATCH), torch.split(targets, _BATCH), strict=True):
        with torch.no_grad():
            wanted = features(pixels[rows])
        made.append(pgd(mimic(features, wanted), part, eps, steps=steps, generator=generator)[0])
    return torch.cat(made)
