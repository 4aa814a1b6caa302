"""The generated reference: what is public has a docstring, and the pages can be built."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "reference.py"
PUBLIC = re.findall(r'^    "(edgewright[\w.]*)",$', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)


def undocumented(module: ModuleType) -> list[str]:
    """Public classes, functions and methods of a module without a docstring of their own."""
    found = [] if module.__doc__ else [module.__name__]
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        members: dict[str, object] = {name: value}
        if inspect.isclass(value):
            members |= {
                f"{name}.{attribute}": member
                for attribute, member in vars(value).items()
                if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
            }
        found += [f"{module.__name__}.{label}" for label, member in members.items() if not member.__doc__]
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name: str) -> None:
    assert undocumented(importlib.import_module(name)) == []


@pytest.mark.slow
def test_reference_is_built(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    # Nothing that pdoc could not resolve.
    assert "Warn" not in done.stderr, done.stderr
    for name in PUBLIC:
        assert (tmp_path / f"{name.replace('.', '/')}.html").is_file()
    assert "Open a bundle and load one of its artefacts" in (tmp_path / "edgewright.html").read_text(encoding="utf-8")
    assert (tmp_path / "search.js").is_file()


def test_public_modules_are_found() -> None:
    assert len(PUBLIC) > 15
