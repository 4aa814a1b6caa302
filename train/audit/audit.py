"""The audit: accuracy on spoilt pictures, under attack, and under attacks made on the public teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgewright.runtime.console import notice, track, warn
from edgewright.runtime.parallel import available_cores, bounded_map
from edgewright.train.audit.attacks import Objective, fgsm_signs, misclassify, pgd, random_signs, shifted
from edgewright.train.audit.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from edgewright.train.audit.inherited import (
    Teacher,
    TeacherKey,
    choose_targets,
    feature_examples,
    features_at,
    read_teacher,
    score_examples,
    teacher_of,
)
from edgewright.train.audit.results import Attacked, Audit, AuditPlan, Example, RunAudit, Transferred
from edgewright.train.audit.subject import Subject, choose_pictures, read_students, read_subject
from edgewright.train.processes import join_processes

__all__ = ["audit"]

_BATCH = 16
"""Pictures per gradient; more are slower on a CPU, whose cache they leave."""


def audit(plan: AuditPlan) -> Audit:
    """Audit the runs on the same pictures.

    Raises:
        WeightsError: no finished run in a folder.
        DataError: data that does not fit the runs.
        UsageError: a device that cannot be used.
    """
    started = time.perf_counter()
    device = join_processes(plan.device).device
    students = read_students(plan.runs)
    samples = choose_pictures(students, plan.data, plan.images, plan.seed)
    subjects = [read_subject(run, samples, device) for run in students]
    notice(f"{len(samples)} pictures of '{plan.data}', " + ", ".join(f"{one.name} ({_depth(one)})" for one in subjects))
    notice(_estimate(subjects, plan))
    audits = [_start(subject, plan) for subject in subjects]
    for one in audits:
        _corruptions(one, plan)
        _known_network(one, plan)
    _teachers(audits, plan, device)
    return Audit(plan, len(samples), students[0].record.classes, tuple(audits), time.perf_counter() - started)


def _depth(subject: Subject) -> str:
    return f"{subject.run.record.strategy}, {subject.frozen} of {subject.stages} stages frozen"


def _estimate(subjects: Sequence[Subject], plan: AuditPlan) -> str:
    """How long it can take, from one gradient and one forward pass of each run."""
    seconds = 0.0
    for subject in subjects:
        part = subject.pixels[:_BATCH]
        objective = misclassify(subject.network, subject.labels[:_BATCH])
        # The first of each kind also pays for choosing kernels.
        fgsm_signs(objective, part)
        _predict(subject.network, part)
        gradient = _seconds(partial(fgsm_signs, objective, part)) / len(part)
        forward = _seconds(partial(_predict, subject.network, part)) / len(part)
        count = len(subject.pixels)
        # One search against the network itself, which stops early for most pictures, and two on the teacher.
        gradients = count * (1 + 3 * len(plan.eps) * plan.steps)
        seconds += gradients * gradient + count * forward * (len(CORRUPTIONS) * len(STRENGTHS) + 5 * len(plan.eps))
    return f"takes up to {math.ceil(seconds / 60)} min here; fewer --images or --eps take less"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _predict(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Index of the largest logit of uint8 pixels (N, height, width, 3), int64 (N)."""
    with torch.inference_mode():
        parts = [network(part).argmax(1) for part in torch.split(pixels, _BATCH)]
    return torch.cat(parts)


def _start(subject: Subject, plan: AuditPlan) -> RunAudit:
    right = _predict(subject.network, subject.pixels) == subject.labels
    shown = int(right.to(torch.int8).argmax())
    return RunAudit(subject, _mean(right), right, shown, {}, {}, [], [], [], [])


def _corruptions(one: RunAudit, plan: AuditPlan) -> None:
    subject = one.subject
    pictures = subject.pixels.cpu().numpy()
    steps = [(name, strength) for name in CORRUPTIONS for strength in STRENGTHS]
    top1: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    answers: dict[str, list[int]] = {name: [] for name in CORRUPTIONS}
    for name, strength in track(steps, f"{subject.name}: corruptions", len(steps)):
        spoilt = bounded_map(
            partial(_spoil, pictures, name, strength, plan.seed),
            range(len(pictures)),
            threads=available_cores(),
            in_flight=4 * _BATCH,
        )
        predicted = _predict(subject.network, torch.from_numpy(np.stack(list(spoilt))).to(subject.pixels.device))
        top1[name].append(_mean(predicted == subject.labels))
        answers[name].append(int(predicted[one.shown]))
    one.corruptions = {name: tuple(values) for name, values in top1.items()}
    one.spoilt = {name: tuple(values) for name, values in answers.items()}


def _spoil(pictures: npt.NDArray[np.uint8], name: str, strength: int, seed: int, index: int) -> npt.NDArray[np.uint8]:
    return corrupt(pictures[index], name, strength, seed=seed, index=index)


def _known_network(one: RunAudit, plan: AuditPlan) -> None:
    """Noise, FGSM and PGD against the network itself."""
    subject = one.subject
    generator = torch.Generator().manual_seed(plan.seed)
    noise = random_signs(subject.pixels, generator)
    parts = list(zip(torch.split(subject.pixels, _BATCH), torch.split(subject.labels, _BATCH), strict=True))
    signs = torch.cat(
        [
            fgsm_signs(misclassify(subject.network, labels), pixels)
            for pixels, labels in track(parts, f"{subject.name}: gradients", len(parts))
        ]
    )
    for attack, direction in (("noise", noise), ("fgsm", signs)):
        for eps in plan.eps:
            _record(one, attack, eps, shifted(subject.pixels, eps * direction))
    found = subject.pixels.clone()
    # What was found within a smaller bound is within the larger one too.
    standing = one.right.clone()
    for eps in track(plan.eps, f"{subject.name}: PGD", len(plan.eps)):
        for rows in torch.split(standing.nonzero().squeeze(1), _BATCH):
            objective: Objective = misclassify(subject.network, subject.labels[rows])
            made, reached = pgd(objective, subject.pixels[rows], eps, steps=plan.steps, generator=generator)
            found[rows] = made
            standing[rows] = ~reached
        _record(one, "pgd", eps, found)


def _record(one: RunAudit, attack: str, eps: int, pixels: torch.Tensor) -> None:
    predicted = _predict(one.subject.network, pixels)
    right = predicted == one.subject.labels
    one.adversarial.append(Attacked(attack, eps, _mean(right), _share(~right, one.right)))
    one.examples.append(Example(attack, eps, pixels[one.shown].cpu(), int(predicted[one.shown]), None))


def _share(found: torch.Tensor, among: torch.Tensor) -> float | None:
    return _mean(found[among]) if among.any() else None


def _mean(found: torch.Tensor) -> float:
    return int(found.sum()) / found.numel()


def _teachers(audits: Sequence[RunAudit], plan: AuditPlan, device: torch.device) -> None:
    """Examples are made once per teacher and place, and tried on every run that they concern."""
    groups: dict[TeacherKey, list[RunAudit]] = {}
    for one in audits:
        key = teacher_of(one.subject, [other.subject for other in audits])
        if isinstance(key, str):
            _skip([one], ("scores", "features"), key)
        else:
            groups.setdefault(key, []).append(one)
    for key, members in groups.items():
        teacher = read_teacher(key, len(members[0].subject.run.record.classes), device)
        if isinstance(teacher, str):
            _skip(members, ("scores", "features"), teacher)
            continue
        _from_scores(teacher, members, plan)
        for cut in dict.fromkeys(one.subject.cut for one in members):
            _from_features(teacher, cut, [one for one in members if one.subject.cut == cut], plan)


def _skip(members: Sequence[RunAudit], attacks: Sequence[str], why: str) -> None:
    for one in members:
        warn(f"{one.subject.name}: not tried ({', '.join(attacks)}): {why}")
        one.skipped += [(attack, why) for attack in attacks]


def _from_scores(teacher: Teacher, members: Sequence[RunAudit], plan: AuditPlan) -> None:
    if teacher.scores is None:
        _skip(members, ("scores",), f"the weights '{teacher.key.weights}' come without class scores of their own")
        return
    pixels = members[0].subject.pixels
    for eps in track(plan.eps, f"{teacher.key.title}: by its scores", len(plan.eps)):
        made = score_examples(teacher.scores, pixels, eps, plan.steps, plan.seed)
        for one in members:
            _try(one, teacher, "scores", eps, made, None)


def _from_features(teacher: Teacher, cut: str, members: Sequence[RunAudit], plan: AuditPlan) -> None:
    subject = members[0].subject
    targets = choose_targets(subject.labels, plan.seed)
    features = features_at(teacher, cut, subject.pixels.device)
    for eps in track(plan.eps, f"{teacher.key.title}: by its features at {cut}", len(plan.eps)):
        made = feature_examples(features, subject.pixels, targets, eps, plan.steps, plan.seed)
        for one in members:
            _try(one, teacher, "features", eps, made, targets)


def _try(
    one: RunAudit, teacher: Teacher, attack: str, eps: int, pixels: torch.Tensor, targets: torch.Tensor | None
) -> None:
    subject = one.subject
    predicted = _predict(subject.network, pixels)
    right = predicted == subject.labels
    targeted = None
    if targets is not None:
        targeted = _share(predicted == subject.labels[targets], one.right & one.right[targets])
    one.transfer.append(
        Transferred(
            subject.name,
            subject.run.record.strategy,
            subject.frozen,
            subject.stages,
            teacher.key.title,
            attack,
            eps,
            _mean(right),
            _share(~right, one.right),
            targeted,
        )
    )
    target = None if targets is None else int(targets[one.shown])
    one.examples.append(Example(attack, eps, pixels[one.shown].cpu(), int(predicted[one.shown]), target))
