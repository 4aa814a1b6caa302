"""The training comparisons from end to end on a few tiny pictures: figures that belong together, both sides really at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import pytest

from edgewright.benchmarks.peers.sides import tutorial
from edgewright.benchmarks.peers.tutorial import TutorialConfig, train_as_tutorial
from edgewright.runtime.errors import DataError, UsageError
from edgewright.train.config import TrainConfig
from edgewright.train.trainer import train

if TYPE_CHECKING:
    from tests.benchmarks.conftest import Measure

MakePictures = Callable[[Mapping[str, int]], Path]

BACKBONE = "mobilenet_v3_small"
HEAD_PARAMETERS = 1024 * 2 + 2


@pytest.fixture
def pictures(picture_folder: MakePictures) -> Path:
    sizes = {"train": 9, "validation": 3, "test": 4}
    return picture_folder({f"{split}/{name}": size for split, size in sizes.items() for name in ("cat", "dog")})


def tutorial_run(pictures: Path, **config: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"data": str(pictures), "backbone": BACKBONE, "imgsz": 32, "weights": "none", "epochs": 1}
    return tutorial("the tutorial", **{**common, **config}).run()


@pytest.mark.slow
def test_tutorial_trains_the_head_alone_or_everything(pictures: Path) -> None:
    frozen = tutorial_run(pictures, frozen=True, epochs=2, per_class=5)
    assert frozen["trained_parameters"] == HEAD_PARAMETERS
    assert frozen["images"] == {"train": 10, "val": 6, "test": 8}
    assert len(frozen["epochs"]) == 2
    everything = tutorial_run(pictures, frozen=False, recipe="adamw")
    assert everything["trained_parameters"] > 1_000_000 + HEAD_PARAMETERS
    parts = everything["setup_s"] + everything["test_s"]
    parts += sum(epoch["train_seconds"] + epoch["val_seconds"] for epoch in everything["epochs"])
    assert 0.5 * everything["seconds"] < parts < everything["seconds"]


@pytest.mark.slow
def test_tutorial_refuses_what_it_cannot_do(pictures: Path) -> None:
    def refused(**config: Any) -> None:
        # In this process; how a side tells its parent is tested with the sides.
        train_as_tutorial(TutorialConfig(data=str(pictures), weights="none", imgsz=32, frozen=True, **config))

    with pytest.raises(UsageError, match="Expected a linear one"):
        refused(backbone="squeezenet1_0")
    with pytest.raises(UsageError, match="Unknown recipe 'lion'"):
        refused(recipe="lion")
    (pictures / "test" / "cat").rename(pictures / "test" / "camel")
    with pytest.raises(DataError, match="other classes"):
        refused()


@pytest.mark.slow
def test_head_training(measure: Measure, pictures: Path) -> None:
    options = ("--backbone", BACKBONE, "--weights", "none", "--imgsz", 32, "--epochs", 1, "--runs", 1)
    found = measure("head_training", "--data", pictures, *options)
    ours, peer = found["ours"], found["peer"]
    assert len(ours["seconds_of_each_run"]) == 1
    assert ours["seconds"] == median(ours["seconds_of_each_run"])
    assert found["ratio"] == pytest.approx(peer["seconds"] / ours["seconds"])
    assert found["images"]["ours"] == found["images"]["peer"] == {"train": 18, "val": 6, "test": 8}
    assert found["imgsz"] == {"ours": 32, "peer": 32}
    assert {8 * ours["top1"] % 1, 8 * peer["top1"] % 1} == {0}
    assert {"torch", "torchvision"} <= set(found["device"]["versions"])


@pytest.mark.slow
def test_full_training_alternates(measure: Measure, pictures: Path) -> None:
    options = ("--backbone", BACKBONE, "--weights", "none", "--imgsz", 32, "--epochs", 2, "--batch", 4)
    found = measure("full_training", "--data", pictures, *options, "--same-recipe")
    for name in ("ours", "peer", "peer_same_recipe"):
        row = found[name]
        assert row["turns"] == 2
        assert len(row["images_per_s_of_each_epoch"]) == 2
        assert row["images_per_s"] == median(row["images_per_s_of_each_epoch"])
        assert row["images"]["train"] == 18
        assert row["train_imgsz"] == 32
        # Time that a side only waited is in neither figure.
        assert 18 * 2 / row["seconds"] < row["images_per_s"]
        assert 8 * row["top1"] % 1 == 0
    assert found["ratio"] == pytest.approx(found["ours"]["images_per_s"] / found["peer"]["images_per_s"])
    assert found["seconds_ratio"] == pytest.approx(found["peer"]["seconds"] / found["ours"]["seconds"])


@pytest.mark.slow
def test_time_to_accuracy(measure: Measure, pictures: Path) -> None:
    options = ("--backbone", BACKBONE, "--weights", "none", "--imgsz", 32, "--budgets", "10s")
    found = measure("time_to_accuracy", "--data", pictures, *options)
    (row,) = found["budgets"]
    assert row["budget_s"] == 10
    for way in ("auto", "scratch"):
        assert row[way]["seconds"] > 0
        assert 8 * row[way]["top1"] % 1 == 0


@pytest.mark.slow
def test_distillation_with_a_run_as_teacher(measure: Measure, pictures: Path, tmp_path: Path) -> None:
    run = train(
        TrainConfig(
            data=str(pictures),
            backbone="squeezenet1_1",
            weights="none",
            strategy="head",
            imgsz=32,
            out=str(tmp_path / "teacher"),
        )
    )
    options = ("--student", BACKBONE, "--weights", "none", "--imgsz", 32, "--epochs", 1, "--seeds", 1)
    found = measure("distillation", "--teacher", run.folder, "--data", pictures, *options)
    for side in ("ours", "peer"):
        assert len(found[side]["top1_of_each_seed"]) == 1
        assert found[side]["top1"] == mean(found[side]["top1_of_each_seed"])
    assert found["points"] == pytest.approx(100 * (found["ours"]["top1"] - found["peer"]["top1"]))
    assert found["teacher_top1"] == run.record.test_top1
