"""Examples made on the teacher alone work on a student that kept the teacher's layers."""

from __future__ import annotations

import pytest
import torch

from edgewright.train.audit.attacks import random_signs, shifted
from edgewright.train.audit.inherited import (
    TeacherKey,
    choose_targets,
    feature_examples,
    features_at,
    read_teacher,
    score_examples,
    teacher_of,
)
from edgewright.train.audit.subject import choose_pictures, read_subject
from edgewright.train.backbones.surgery import plan_stages
from edgewright.train.backbones.weights import preprocess_for

from .conftest import Runs, Trained

CPU = torch.device("cpu")
EPS = 16


def builtin() -> TeacherKey:
    return TeacherKey("mobilenet_v3_small", "builtin", preprocess_for("mobilenet_v3_small", "builtin", 32, True))


def test_every_target_is_of_another_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    targets = choose_targets(labels, seed=0)
    assert (labels[targets] != labels).all()
    assert len(set(choose_targets(torch.arange(50), seed=0).tolist())) > 20


def test_teacher_has_the_students_cuts(trained: Trained) -> None:
    teacher = read_teacher(builtin(), 10, CPU)
    assert not isinstance(teacher, str)
    assert teacher.plan.cuts == plan_stages(trained.network, trained.pixels[:1]).cuts


def test_features_of_the_teacher_fool_a_student_that_kept_them(trained: Trained) -> None:
    teacher = read_teacher(builtin(), 10, CPU)
    assert not isinstance(teacher, str)
    with torch.inference_mode():
        right = trained.network(trained.pixels).argmax(1) == trained.labels
    targets = choose_targets(trained.labels, seed=0)
    features = features_at(teacher, teacher.plan.cuts[-1], CPU)
    made = feature_examples(features, trained.pixels, targets, EPS, steps=10, seed=0)
    noise = shifted(trained.pixels, EPS * random_signs(trained.pixels, torch.Generator().manual_seed(0)))
    assert int((made.int() - trained.pixels.int()).abs().max()) <= EPS
    with torch.inference_mode():
        said = trained.network(made).argmax(1)
        fooled = (said != trained.labels)[right].float().mean()
        intended = (said == trained.labels[targets])[right].float().mean()
        by_noise = (trained.network(noise).argmax(1) != trained.labels)[right].float().mean()
    assert fooled > by_noise + 0.2
    # One of nine other classes would be hit by chance.
    assert intended > 2 / 9


def test_weights_without_classes_make_no_examples_by_scores() -> None:
    teacher = read_teacher(builtin(), 10, CPU)
    assert not isinstance(teacher, str)
    assert teacher.scores is None


def test_teacher_that_cannot_be_had_is_a_reason() -> None:
    why = read_teacher(TeacherKey("mobilenet_v3_small", "gone.pth", builtin().preprocess), 10, CPU)
    assert isinstance(why, str)
    assert "No weights at 'gone.pth'" in why


@pytest.mark.slow
def test_scores_of_a_run_that_was_reused_lead_away_from_its_answers(runs: Runs) -> None:
    key = TeacherKey("mobilenet_v3_small", str(runs.head.folder), runs.head.record.preprocess)
    teacher = read_teacher(key, 3, CPU)
    assert not isinstance(teacher, str)
    assert teacher.scores is not None
    subject = read_subject(runs.head, choose_pictures([runs.head], "digits", 20, seed=0), CPU)
    made = score_examples(teacher.scores, subject.pixels, EPS, steps=5, seed=0)
    assert int((made.int() - subject.pixels.int()).abs().max()) <= EPS
    with torch.inference_mode():
        assert (teacher.scores(made).argmax(1) != teacher.scores(subject.pixels).argmax(1)).float().mean() > 0.8


@pytest.mark.slow
def test_run_from_scratch_is_shown_the_teacher_of_the_run_beside_it(runs: Runs) -> None:
    few = choose_pictures([runs.head], "digits", 4, seed=0)
    head, scratch = read_subject(runs.head, few, CPU), read_subject(runs.scratch, few, CPU)
    assert teacher_of(head, [head]) == teacher_of(scratch, [scratch, head])
    assert "no public teacher" in str(teacher_of(scratch, [scratch]))
