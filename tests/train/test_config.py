"""What a training run may be told, and which options exclude each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgewright.runtime.errors import UsageError
from edgewright.runtime.settings import load_settings
from edgewright.train.config import TrainConfig


def test_data_alone_is_enough() -> None:
    config = TrainConfig(data="photos")
    assert (config.backbone, config.weights, config.strategy) == ("mobilenet_v2", "imagenet", "auto")
    # None is decided later, from the strategy and the budget.
    assert (config.epochs, config.budget, config.lr, config.layer_decay, config.weight_decay) == (None,) * 5


def test_data_are_required() -> None:
    with pytest.raises(ValidationError, match="data"):
        TrainConfig.model_validate({})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch", 1),
        ("budget", 5),
        ("budget", "5s"),
        ("budget", "soon"),
        ("accumulate", 0),
        ("train_imgsz", 8),
        ("warmup", 1),
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("ema", 1),
        ("balance", "magic"),
        ("optimizer", "magic"),
        ("augment", "magic"),
        ("mixup", -0.1),
        ("cutmix", -0.1),
        ("distill_temperature", 0),
        ("checkpoint_s", -1),
        ("checkpoint_s", math.nan),
        ("budget", math.nan),
        ("mixup", math.nan),
        ("imgsz", 8),
        ("imgsz", 2048),
        ("lr", 0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("label_smoothing", 1),
        ("patience", 0),
        ("freeze", 0),
        ("views", 0),
        ("crop_scale", 0),
        ("crop_scale", 1.1),
        ("color_jitter", 1),
        ("val_fraction", 0),
        ("val_fraction", 0.5),
        ("test_fraction", 0.5),
        ("per_class", 0),
        ("distill_weight", 1.1),
        ("precision", "int8"),
        ("strategy", "magic"),
        ("workers", 0),
        ("seed", -1),
        ("unheard_of", 1),
    ],
)
def test_value_out_of_range_is_refused(field: str, value: object) -> None:
    strategy = {"freeze": "partial"}.get(field, "head")
    with pytest.raises(ValidationError, match=field):
        TrainConfig.model_validate({"data": "photos", "strategy": strategy} | {field: value})


def test_scratch_needs_no_mention_of_weights() -> None:
    assert TrainConfig(data="photos", strategy="scratch").weights == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "scratch", "weights": "imagenet"}, "set weights to 'none'"),
        ({"strategy": "head", "freeze": 2}, "freeze belongs to strategy 'partial', not to 'head'"),
        ({"strategy": "full", "freeze": 2}, "freeze belongs to strategy 'partial', not to 'full'"),
        ({"strategy": "head", "teacher": "resnet18"}, "a teacher belongs to strategy 'full' or 'scratch'"),
        ({"strategy": "partial", "teacher": "resnet18"}, "a teacher belongs to strategy 'full' or 'scratch'"),
        ({"teacher": "resnet18"}, "a teacher belongs to strategy 'full' or 'scratch', not to 'auto'"),
        ({"freeze": 2}, "freeze belongs to strategy 'partial', not to 'auto'"),
        ({"strategy": "full", "teacher": "resnet18", "mixup": 0.2}, "no mixup or cutmix with a teacher"),
        ({"strategy": "full", "teacher": "resnet18", "cutmix": 1}, "no mixup or cutmix with a teacher"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig(data="photos", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "partial", "freeze": 2},
        {"strategy": "full", "teacher": "resnet18"},
        {"strategy": "scratch", "teacher": "resnet18"},
    ],
)
def test_options_that_belong_together_are_accepted(options: dict[str, Any]) -> None:
    assert TrainConfig(data="photos", **options).strategy == options["strategy"]


def test_options_that_exclude_each_other_are_explained_to_the_user() -> None:
    with pytest.raises(UsageError, match=r"^freeze belongs to strategy 'partial', not to 'auto'\.$"):
        load_settings(TrainConfig, {"data": "photos", "freeze": 2}, None)


def test_scratch_in_a_file_needs_no_mention_of_weights(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: photos\nstrategy: scratch\n")
    assert load_settings(TrainConfig, {}, tmp_path / "run.yaml").weights == "none"


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig(data="photos").epochs = 3  # type: ignore[misc]


def test_dumped_config_is_read_back_equal() -> None:
    config = TrainConfig(data="photos", strategy="scratch", lr=1e-3, mirror=False, budget=90)
    assert TrainConfig(**config.model_dump()) == config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1.5h", 5400), ("45", 45), (" 2 m ", 120), (30, 30), (12.5, 12.5)],
)
def test_budget_is_a_duration(text: Any, seconds: float) -> None:
    assert TrainConfig(data="photos", budget=text).budget == seconds


@pytest.mark.parametrize("text", ["soon", "10 minutes", "-10m", "1h30m", "", "m", "1e3s"])
def test_what_is_no_duration_is_explained(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a duration such as 90s, 10m or 1\.5h"):
        load_settings(TrainConfig, {"data": "photos", "budget": text}, None)


def test_duration_in_a_file_is_read_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: photos\nbudget: 10m\ncheckpoint_s: 30\n")
    config = load_settings(TrainConfig, {}, tmp_path / "run.yaml")
    assert (config.budget, config.checkpoint_s) == (600, 30)
