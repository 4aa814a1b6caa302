"""The page for the browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.export.exporter import Export

from ..demo.conftest import start_page, stop_page


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
    page = start_page(digits_export.bundle.path, errors=errors)
    yield page.url
    stop_page(page)
