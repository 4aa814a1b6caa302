"""What is audited: the right pictures, the right labels, and what of the run is frozen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from edgewright.runtime.errors import DataError, WeightsError
from edgewright.train.audit.subject import choose_pictures, read_students, read_subject, stratified
from edgewright.train.config import TrainConfig
from edgewright.train.data import Sample
from edgewright.train.run import Run
from edgewright.train.trainer import train

from .conftest import Runs

CPU = torch.device("cpu")


def samples(counts: dict[int, int]) -> list[Sample]:
    return [
        Sample(b"", label, f"{label}/{number:03d}.png") for label, count in counts.items() for number in range(count)
    ]


@pytest.mark.parametrize("count", [10, 20, 40])
def test_every_class_keeps_its_share(count: int) -> None:
    found = Counter(sample.label for sample in stratified(samples({0: 60, 1: 30, 2: 10}), count, seed=0))
    assert all(abs(found[label] - share * count) <= 1 for label, share in ((0, 0.6), (1, 0.3), (2, 0.1)))
    assert found.total() == count


def test_all_pictures_are_taken_where_there_are_fewer() -> None:
    few = samples({0: 3, 1: 2})
    assert sorted(stratified(few, 100, seed=0), key=lambda sample: sample.name) == few


def test_choice_depends_on_the_seed_alone() -> None:
    many = samples({0: 60, 1: 30})
    assert stratified(many, 20, seed=1) == stratified(list(reversed(many)), 20, seed=1)
    assert stratified(many, 20, seed=1) != stratified(many, 20, seed=2)


@pytest.mark.slow
def test_own_data_means_the_test_split(runs: Runs) -> None:
    chosen = choose_pictures([runs.head, runs.scratch], "digits", 50, seed=0)
    test = {sample.name: sample.label for sample in runs.head.data().splits["test"]}
    assert len(chosen) == 50
    assert all(test[sample.name] == sample.label for sample in chosen)


def as_folder(run: Run, root: Path, classes: dict[str, str]) -> Path:
    """Some of the run's test pictures as a folder per class; `classes` maps the run's names to the folders'."""
    taken: Counter[int] = Counter()
    for sample in run.data().splits["test"]:
        name = run.record.classes[sample.label]
        if name in classes and taken[sample.label] < 3:
            path = root / classes[name] / f"{taken[sample.label]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.read_bytes())
            taken[sample.label] += 1
    return root


@pytest.mark.slow
def test_labels_of_other_data_are_matched_by_name(runs: Runs, tmp_path: Path) -> None:
    folder = as_folder(runs.head, tmp_path / "data", {"3": "3", "8": "8"})
    assert Counter(sample.label for sample in choose_pictures([runs.head], str(folder), 50, seed=0)) == {3: 3, 8: 3}


@pytest.mark.slow
def test_class_that_the_run_does_not_know_is_refused(runs: Runs, tmp_path: Path) -> None:
    folder = as_folder(runs.head, tmp_path / "data", {"3": "3", "8": "eight"})
    with pytest.raises(DataError, match="has the class 'eight', which is not among: 0, 1, 2"):
        choose_pictures([runs.head], str(folder), 50, seed=0)


@pytest.mark.slow
def test_single_class_is_refused(runs: Runs, tmp_path: Path) -> None:
    folder = as_folder(runs.head, tmp_path / "data", {"3": "3"})
    with pytest.raises(DataError, match="one class at most"):
        choose_pictures([runs.head], str(folder), 50, seed=0)


@pytest.mark.slow
def test_damaged_picture_of_other_data_is_left_out(runs: Runs, tmp_path: Path) -> None:
    folder = as_folder(runs.head, tmp_path / "data", {"3": "3", "8": "8"})
    (folder / "3" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert len(choose_pictures([runs.head], str(folder), 50, seed=0)) == 5


@pytest.mark.slow
def test_runs_that_were_split_differently_share_what_none_was_trained_on(runs: Runs, tmp_path: Path) -> None:
    other = train(
        TrainConfig(
            data="digits", backbone="mobilenet_v3_small", weights="builtin", strategy="head", imgsz=32, seed=5,
            per_class=5, out=str(tmp_path / "other"),
        )
    )  # fmt: skip
    chosen = choose_pictures([runs.head, other], "digits", 1000, seed=0)
    names = {sample.name for sample in chosen}
    for run in (runs.head, other):
        assert names <= {sample.name for sample in run.data().splits["test"]}
    assert 0 < len(names) < len(other.data().splits["test"])


@pytest.mark.slow
def test_runs_of_different_classes_are_refused(runs: Runs, tmp_path: Path) -> None:
    folder = as_folder(runs.head, tmp_path / "data", {"3": "3", "8": "8"})
    other = train(
        TrainConfig(
            data=str(folder), backbone="mobilenet_v3_small", weights="builtin", strategy="head", imgsz=32,
            out=str(tmp_path / "other"),
        )
    )  # fmt: skip
    with pytest.raises(DataError, match=r"has the classes 0, 1, 2, .*other' has 3, 8"):
        read_students([runs.head.folder, other.folder])


@pytest.mark.slow
def test_subject_sees_what_training_evaluated(runs: Runs) -> None:
    test = runs.head.data().splits["test"]
    subject = read_subject(runs.head, test, CPU)
    with torch.inference_mode():
        top1 = (subject.network(subject.pixels).argmax(1) == subject.labels).double().mean()
    assert float(top1) == pytest.approx(runs.head.record.test_top1)


@pytest.mark.slow
def test_frozen_part_is_all_of_a_head_run_and_nothing_of_a_scratch_run(runs: Runs) -> None:
    few = runs.head.data().splits["test"][:2]
    head, scratch = read_subject(runs.head, few, CPU), read_subject(runs.scratch, few, CPU)
    assert head.frozen == head.stages == scratch.stages > 3
    assert scratch.frozen == 0
    assert head.cut == scratch.cut
    assert (head.weights, scratch.weights) == ("builtin", "none")


@pytest.mark.slow
def test_run_without_its_configuration_is_refused(runs: Runs, tmp_path: Path) -> None:
    for name in ("run.json", "best.safetensors", "samples.csv"):
        (tmp_path / name).write_bytes((runs.head.folder / name).read_bytes())
    run = read_students([tmp_path])[0]
    with pytest.raises(WeightsError, match=r"config\.yaml' does not say which weights"):
        choose_pictures([run], "digits", 10, seed=0)
