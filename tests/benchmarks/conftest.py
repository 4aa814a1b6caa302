"""Benchmarks as a user starts them, but for the interpreter's own start."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

Measure = Callable[..., dict[str, Any]]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def measure() -> Measure:
    """`measure("int8_gain", RUN, "--seconds", 1)`: the JSON document of a comparison, run as `python -m` runs it."""

    def run(script: str, *options: object) -> dict[str, Any]:
        name = f"edgewright.benchmarks.peers.{script}"
        stdout = io.StringIO()
        with (
            mock.patch.object(sys, "argv", [script, *map(str, options), "--json"]),
            contextlib.redirect_stdout(stdout),
            # What would not stop a user's Python.
            _without_warnings(),
            pytest.raises(SystemExit) as stopped,
        ):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        assert not stopped.value.code
        document: dict[str, Any] = json.loads(stdout.getvalue())
        return document

    return run
