"""The teacher of a run: what it was given as, made ready for the student's pictures."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.surgery import head_of
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.data.loading import Renderer
from edgewright.train.distill import Lessons, Taught, compile_teacher
from edgewright.train.run import read_run
from edgewright.train.strategies.job import Job

__all__ = ["taught_by"]


def taught_by(job: Job, model: nn.Module, renderer: Renderer) -> Taught:
    """`model` with the configured teacher, which sees the pictures of `renderer`.

    Raises:
        UsageError: the teacher has no classes.
        WeightsError: it cannot be loaded.
    """
    config = job.config
    assert config.teacher is not None
    teacher = Path(config.teacher)
    if teacher.is_dir():
        run = read_run(teacher)
        backbone, weights = run.record.backbone, config.teacher
    else:
        backbone, weights = config.teacher, config.teacher_weights
    pretrained = load_pretrained(backbone, weights)
    if not pretrained.classes:
        raise UsageError(
            f"The teacher '{config.teacher}' with weights '{config.teacher_weights}' has no classes to teach. "
            "Use --teacher-weights imagenet, a file with ImageNet's 1000 classes, or a run folder as --teacher."
        )
    theirs = preprocess_for(backbone, weights, config.teacher_imgsz, False)
    same = pretrained.classes == job.data.classes
    notice(
        f"teacher: {backbone} ({pretrained.source}) at {theirs.crop} px, {config.views} cached views, "
        + ("the same classes" if same else f"{len(pretrained.classes)} classes of its own")
    )
    compiled = compile_teacher(pretrained.model, theirs, renderer.spec.crop, job.processes.device)
    lessons = Lessons(compiled, len(pretrained.classes), renderer, config.views, job.cache)
    _, head = head_of(job.network)
    taught = Taught(model, head, lessons, same_classes=same, temperature=config.distill_temperature)
    return taught.to(job.processes.device)
