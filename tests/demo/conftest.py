"""The page, running as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from edgewright.export.exporter import Export


@dataclass(frozen=True)
class Page:
    """Where it is, its process, and how long it took until it could be used."""

    url: str
    process: subprocess.Popen[str]
    started_s: float


def start_page(*arguments: str | Path, errors: Path) -> Page:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "edgewright",
        "demo",
        *map(str, arguments),
        "--port",
        "0",
        "--json",
    ]
    begun = monotonic()
    with errors.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, errors.read_text()
        text += line
    return Page(json.loads(text)["url"], process, monotonic() - begun)


def stop_page(page: Page) -> None:
    page.process.terminate()
    page.process.wait(20)
    assert page.process.stdout is not None
    page.process.stdout.close()


@pytest.fixture(scope="session")
def page(digits_export: Export, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of the digits."""
    found = start_page(digits_export.bundle.path, errors=tmp_path_factory.mktemp("page") / "stderr.txt")
    yield found
    stop_page(found)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """`start(BUNDLE, "--auth", FILE)`: another page, stopped at the end."""
    pages: list[Page] = []

    def run(*arguments: str | Path) -> Page:
        pages.append(start_page(*arguments, errors=tmp_path / f"stderr-{len(pages)}.txt"))
        return pages[-1]

    yield run
    for page in pages:
        stop_page(page)
