"""Flags and a YAML file become one validated model; whatever is wrong becomes a UsageError that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from edgewright.runtime.errors import UsageError
from edgewright.runtime.settings import load_settings


class Oven(BaseModel):
    """A model of settings such as every stage has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dish: str
    max_heat: int = Field(200, ge=50, le=300)
    fan: bool | None = None


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "oven.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_flags_alone_are_enough() -> None:
    assert load_settings(Oven, {"dish": "pie"}, None) == Oven(dish="pie")


def test_file_alone_is_enough(tmp_path: Path) -> None:
    assert load_settings(Oven, {}, write(tmp_path, "dish: pie\nmax_heat: 180\n")) == Oven(dish="pie", max_heat=180)


def test_flag_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "dish: pie\nmax_heat: 180\n")
    assert load_settings(Oven, {"max_heat": 100}, file).max_heat == 100


def test_flag_that_was_not_given_leaves_the_file_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "dish: pie\nmax_heat: 180\n")
    assert load_settings(Oven, {"max_heat": None}, file).max_heat == 180


def test_flag_that_is_false_counts_as_given(tmp_path: Path) -> None:
    assert load_settings(Oven, {"fan": False}, write(tmp_path, "dish: pie\nfan: true\n")).fan is False


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dish": "pie", "salt": 3}, "--salt: .*not permitted, found 3"),
        ({"dish": "pie", "max_heat": 301}, "--max-heat: .*less than or equal to 300, found 301"),
        ({"dish": "pie", "max_heat": "warm"}, "--max-heat: .*valid integer.*found 'warm'"),
        ({"max_heat": 100}, "--dish: Field required"),
    ],
)
def test_value_that_is_not_allowed_is_named_as_its_flag(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(Oven, flags, None)


@pytest.mark.parametrize("text", ["", "null", "- dish", "pie"])
def test_file_without_options_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"oven\.yaml' holds no options"):
        load_settings(Oven, {"dish": "pie"}, write(tmp_path, text))


@pytest.mark.parametrize("text", ["dish: [", b"\xff\xfe\x00", "dish: !!python/object/apply:os.getcwd []"])
def test_file_that_is_not_plain_yaml_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UsageError, match=r"Cannot read the configuration .*oven\.yaml"):
        load_settings(Oven, {}, write(tmp_path, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        load_settings(Oven, {"dish": "pie"}, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["1: 2", "on: 2"])
def test_option_whose_name_is_no_text_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"oven\.yaml' holds no options"):
        load_settings(Oven, {"dish": "pie"}, write(tmp_path, text))
