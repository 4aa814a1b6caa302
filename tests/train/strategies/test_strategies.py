"""Every strategy trains the layers that it says, repeats to the bit, and `auto` decides by what it measured."""

from __future__ import annotations

import functools
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.config import TrainConfig
from edgewright.train.data import ImageData, read_data
from edgewright.train.data.samples import Sample
from edgewright.train.data.splitting import subset_per_class
from edgewright.train.evaluation import SplitResult
from edgewright.train.folding import fix_batchnorm
from edgewright.train.processes import Processes
from edgewright.train.strategies import Job, run_strategy
from edgewright.train.strategies.auto import gain_and_noise, levels
from edgewright.train.strategies.balance import class_weights
from edgewright.train.strategies.tuning import mixing, stage_names

BACKBONE = "mobilenet_v3_small"


@functools.cache
def digits() -> ImageData:
    """The digits, with a third of validation and test: enough to decide by, and quick."""
    data = read_data("digits", seed=0)
    return replace(data, splits={"train": data.splits["train"]} | {s: data.splits[s][::3] for s in ("val", "test")})


@functools.cache
def colours() -> ImageData:
    """Two classes that any features tell apart: reddish and bluish noise."""
    rng = np.random.default_rng(0)

    def sample(label: int, number: int) -> Sample:
        pixels = rng.integers(0, 80, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, 2 * label] += 150
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return Sample(buffer.getvalue(), label, f"{label}/{number}.png")

    splits = {
        split: tuple(sample(label, number) for label in (0, 1) for number in range(count))
        for split, count in (("train", 12), ("val", 16), ("test", 4))
    }
    return ImageData("colours", ("red", "blue"), splits, (), mirrored=True, resize_to_crop=True)


def job(folder: Path, data: ImageData | None = None, **options: Any) -> Job:
    """What the trainer makes of a configuration, without the report."""
    usual: dict[str, Any] = {"data": "digits", "backbone": BACKBONE, "imgsz": 32, "batch": 16, "epochs": 1}
    if options["strategy"] != "scratch":
        usual["weights"] = "builtin"
    config = TrainConfig(**(usual | options))
    data = data or digits()
    if config.per_class is not None:
        data = replace(
            data, splits=data.splits | {"train": subset_per_class(data.splits["train"], config.per_class, 0)}
        )
    spec = preprocess_for(BACKBONE, config.weights, config.imgsz, True)
    torch.manual_seed(config.seed)
    model = load_pretrained(BACKBONE, config.weights).model
    replace_head(model, len(data.classes))
    network = Network(model, spec)
    pretrained = config.weights != "none"
    if pretrained:
        fix_batchnorm(model)
    (folder / "last").mkdir(parents=True)
    started = time.monotonic()
    return Job(config, data, network, pretrained, spec, Processes(torch.device("cpu")), folder, torch.float32, started)


def parameters(work: Job) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in work.network.named_parameters()}


# Decisions


def result(predicted: list[int], labels: list[int]) -> SplitResult:
    return SplitResult(np.eye(3, dtype=np.float32)[predicted], np.array(labels))


def test_gain_is_the_difference_and_noise_that_of_the_pictures_that_changed() -> None:
    labels = [0] * 100
    before = result([0] * 60 + [1] * 40, labels)
    # 12 that were wrong are right, 4 that were right are wrong; one wrong answer became another.
    after = result([1] * 4 + [0] * 56 + [0] * 12 + [2] + [1] * 27, labels)
    gain, noise = gain_and_noise(before, after)
    assert gain == pytest.approx(after.top1 - before.top1) == pytest.approx(0.08)
    assert noise == pytest.approx(16**0.5 / 100)


def test_equal_answers_have_no_gain_and_the_noise_of_one_picture() -> None:
    same = result([0, 1, 2, 2], [0, 1, 1, 2])
    assert gain_and_noise(same, same) == (0.0, 0.25)


@pytest.mark.parametrize("seed", range(3))
def test_chance_is_rarely_taken_for_a_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    beyond = 0
    for _ in range(300):
        labels = np.zeros(200, dtype=np.int64)
        two = [SplitResult(np.eye(2, dtype=np.float32)[(rng.random(200) > 0.8).astype(int)], labels) for _ in range(2)]
        gain, noise = gain_and_noise(*two)
        beyond += gain > noise
    # One standard error to one side: 16 in 100.
    assert 20 < beyond < 80


@pytest.mark.parametrize(
    ("stages", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 3, 5]), (6, [1, 3, 6])]
)
def test_levels_are_the_top_the_upper_half_and_all(stages: int, expected: list[int]) -> None:
    assert levels(stages) == expected


def test_class_weights_are_inverse_to_the_counts_and_one_on_average(tmp_path: Path) -> None:
    data = colours()
    uneven = replace(data, splits=data.splits | {"train": data.splits["train"][:15]})
    weights = class_weights(job(tmp_path, uneven, strategy="head"))
    assert weights.tolist() == pytest.approx([15 / (2 * 12), 15 / (2 * 3)])
    labels = torch.tensor([sample.label for sample in uneven.splits["train"]])
    assert weights[labels].mean().item() == pytest.approx(1)


# What learns


def test_head_changes_the_head_alone(tmp_path: Path) -> None:
    work = job(tmp_path, strategy="head", per_class=8)
    before = parameters(work)
    outcome = run_strategy(work)
    changed = {name for name, value in parameters(work).items() if not torch.equal(value, before[name])}
    assert changed == set(stage_names(work)[-1])
    assert outcome.trained_stages == 0
    assert outcome.results["val"].top1 > 0.5


@pytest.mark.parametrize("freeze", [3, 5])
def test_frozen_stages_do_not_change(tmp_path: Path, freeze: int) -> None:
    work = job(tmp_path, strategy="partial", per_class=4, freeze=freeze, views=1, lr=1e-2)
    stages = stage_names(work)
    before = parameters(work)
    outcome = run_strategy(work)
    after = parameters(work)
    moved = {name: float((after[name] - before[name]).norm() / before[name].norm().clamp(min=1e-3)) for name in after}
    assert max(moved[name] for names in stages[:freeze] for name in names) == 0
    assert min(max(moved[name] for name in names) for names in stages[freeze:]) > 1e-3
    assert (outcome.trained_stages, outcome.stages_total) == (len(stages) - 1 - freeze, len(stages) - 1)


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_everything_learns(tmp_path: Path, strategy: str) -> None:
    work = job(tmp_path, strategy=strategy, per_class=4)
    before = parameters(work)
    run_strategy(work)
    after = parameters(work)
    assert [name for name in after if torch.allclose(after[name], before[name], rtol=1e-5, atol=1e-7)] == []


def test_all_stages_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--freeze 40: 'mobilenet_v3_small' has \d stages; freeze 1 to \d of them"):
        run_strategy(job(tmp_path, strategy="partial", freeze=40))


def test_budget_too_short_for_anything_is_refused(tmp_path: Path) -> None:
    work = job(tmp_path, strategy="full", per_class=8, budget=10)
    work.started -= 9.9
    with pytest.raises(UsageError, match=r"--budget 10s is too short .* Give more time"):
        run_strategy(work)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["head", "partial", "full", "scratch", "auto"])
def test_same_seed_gives_the_same_bits(tmp_path: Path, strategy: str) -> None:
    found = []
    for attempt in ("first", "second"):
        # A trial of `auto` has its number of batches; small ones are enough.
        batch = 4 if strategy == "auto" else 16
        work = job(tmp_path / attempt, strategy=strategy, per_class=6, views=2, mixup=0.2, ema=0.9, batch=batch)
        outcome = run_strategy(work)
        found.append((work.backbone_state(), outcome.results["test"].logits))
    (first, logits), (second, other_logits) = found
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert np.array_equal(logits, other_logits)


@pytest.mark.slow
def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        work = job(tmp_path / str(seed), strategy="full", per_class=4, seed=seed)
        run_strategy(work)
        found.append(work.backbone_state()["features.0.0.weight"])
    assert not torch.equal(*found)


# Recipes


@pytest.mark.parametrize(
    ("strategy", "trained_stages", "recipe", "found"),
    [
        ("full", None, {}, "MixUp 0.2"),
        ("auto", None, {}, "MixUp 0.2"),
        ("partial", 2, {}, ""),
        ("scratch", None, {}, ""),
        ("full", None, {"teacher": "resnet50"}, ""),
        ("full", None, {"mixup": 0.0}, ""),
        ("full", None, {"mixup": 0.4}, "MixUp 0.4"),
        ("full", None, {"cutmix": 1.0}, "CutMix 1"),
    ],
)
def test_mixup_is_usual_where_a_whole_pretrained_network_learns_long(
    tmp_path: Path, strategy: str, trained_stages: int | None, recipe: dict[str, Any], found: str
) -> None:
    work = job(tmp_path, colours(), strategy=strategy, **recipe)
    assert str(mixing(work, trained_stages, 96)[0]) == found
    usual = found == "MixUp 0.2"
    # Five epochs, but no fewer than 480 batches.
    assert [mixing(work, trained_stages, steps)[1] for steps in (10, 200)] == ([480, 1000] if usual else [0, 0])


def test_training_accuracy_counts_the_larger_share(tmp_path: Path) -> None:
    """Reddish and bluish pictures, told apart before training: where two are mixed, the one that is seen more is right."""
    work = job(tmp_path, colours(), strategy="full", mixup=0.05, lr=1e-9)
    assert run_strategy(work).records[0].train_top1 > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"balance": "loss"},
        {"balance": "sampler"},
        {"augment": "trivial"},
        {"cutmix": 1.0, "mixup": 0.2},
        {"optimizer": "sgd"},
        {"accumulate": 3},
        {"precision": "bf16"},
    ],
)
def test_recipe_trains(tmp_path: Path, recipe: dict[str, Any]) -> None:
    work = job(tmp_path, colours(), strategy="full", epochs=2, **recipe)
    if "precision" in recipe:
        work.precision = torch.bfloat16
    outcome = run_strategy(work)
    assert outcome.results["val"].top1 > 0.9
    assert all(np.isfinite(record.train_loss) for record in outcome.records)


@pytest.mark.slow
def test_balance_helps_the_rare_classes(tmp_path: Path) -> None:
    """Digits 5 to 9 have three pictures each, 0 to 4 have forty."""
    data = digits()
    labels = np.array([sample.label for sample in data.splits["train"]])
    few = [index for digit in range(10) for index in np.flatnonzero(labels == digit)[: 40 if digit < 5 else 3]]
    uneven = replace(data, splits=data.splits | {"train": tuple(data.splits["train"][index] for index in few)})
    named = {}
    for way in ("none", "loss", "sampler"):
        outcome = run_strategy(job(tmp_path / way, uneven, strategy="full", epochs=2, balance=way))
        named[way] = int((outcome.results["val"].predicted >= 5).sum())
    assert named["loss"] > named["none"]
    assert named["sampler"] > named["none"]


# auto


@pytest.mark.slow
def test_auto_keeps_the_head_where_nothing_is_left_to_gain(tmp_path: Path) -> None:
    work = job(tmp_path, colours(), strategy="auto", batch=4)
    outcome = run_strategy(work)
    assert [stage.name for stage in outcome.stages] == ["head", "top 1 of 6 stages", "top 3 of 6 stages"]
    assert [stage.kept for stage in outcome.stages] == [True, False, False]
    assert outcome.trained_stages == 0
    assert all(stage.why == "no better beyond noise" for stage in outcome.stages[1:])
    assert outcome.results["val"].top1 == outcome.stages[0].val_top1 == 1.0


@pytest.mark.slow
def test_auto_goes_deeper_where_that_helps(tmp_path: Path) -> None:
    work = job(tmp_path, strategy="auto", per_class=30, epochs=6)
    outcome = run_strategy(work)
    head, kept = outcome.stages[0], next(stage for stage in outcome.stages if stage.kept)
    assert kept.trained_stages == outcome.trained_stages > 0
    assert kept.val_top1 > head.val_top1 + 0.03
    assert kept.val_top1 == max(stage.val_top1 for stage in outcome.stages)
    assert outcome.results["val"].top1 == pytest.approx(kept.val_top1)
    assert "30 to 30 training pictures in a class" in head.why
    assert [record.epoch for record in outcome.records] == list(range(1, len(outcome.records) + 1))
    assert {record.stage for record in outcome.records} >= {"head", "1-trial", "3-trial"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "full", "partial"])
def test_budget_is_kept_and_used(tmp_path: Path, strategy: str) -> None:
    budget_s = 20.0
    work = job(tmp_path, strategy=strategy, budget=budget_s, epochs=None)
    outcome = run_strategy(work)
    # The report, for which four seconds are kept, is not part of this.
    assert 0.3 * budget_s < work.seconds() < budget_s
    assert outcome.results["val"].top1 > 0.8
