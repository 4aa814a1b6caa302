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
    assert (config.backbone, config.weights, config.strategy) == ("mobilenet_v2", "imagenet", "head")


def test_data_are_required() -> None:
    with pytest.raises(ValidationError, match="data"):
        TrainConfig.model_validate({})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch", 1),
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
    with pytest.raises(UsageError, match=r"^freeze belongs to strategy 'partial', not to 'head'\.$"):
        load_settings(TrainConfig, {"data": "photos", "freeze": 2}, None)


def test_scratch_in_a_file_needs_no_mention_of_weights(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: photos\nstrategy: scratch\n")
    assert load_settings(TrainConfig, {}, tmp_path / "run.yaml").weights == "none"


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig(data="photos").epochs = 3  # type: ignore[misc]


def test_dumped_config_is_read_back_equal() -> None:
    config = TrainConfig(data="photos", strategy="scratch", lr=1e-3, mirror=False)
    assert TrainConfig(**config.model_dump()) == config
