"""Flags and a YAML file into one validated model, for every stage alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgewright.runtime.errors import MissingExtraError, UsageError

__all__ = ["load_settings"]

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(model: type[Settings], flags: Mapping[str, Any], file: Path | None) -> Settings:
    """Merge a YAML file and flags. Flags win; a flag that is None was not given.

    Raises:
        UsageError: unreadable file, unknown field, or a value that is not allowed.
    """
    values = {} if file is None else _read_yaml(file)
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
        found = f", found {first['input']!r}" if where and first["type"] != "missing" else ""
        message = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{'--' + where + ': ' if where else ''}{message}{found}.") from error


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "train") from error
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"Cannot read the configuration '{file}': {error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"'{file}' holds no options. Expected lines such as 'epochs: 10'.")
    return values
