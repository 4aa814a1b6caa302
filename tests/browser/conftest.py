"""The page for the browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.export.exporter import Export


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """Not only those of this process of pytest's: a browser, a server and a measurement on one core starve each other."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture(scope="module")
def page_url(all_cores: None, digits_export: Export, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page of the digits is, started as a user starts it."""
    errors: Path = tmp_path_factory.mktemp("page") / "stderr.txt"
    command = [sys.executable, "-W", "ignore", "-m", "edgewright", "demo", str(digits_export.bundle.path)]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, errors.read_text()
            text += line
        yield json.loads(text)["url"]
        process.terminate()
