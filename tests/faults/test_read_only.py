"""Folders that cannot be written, for root either: one line before the work begins, and reading goes on as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from edgewright.runtime.device_cache import CACHE_VARIABLE
from edgewright.train.run import Run

from .conftest import Server, Start, options, refusal

FAULT = "read-only folder"
Try = Callable[..., CompletedProcess[str]]


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder that `try_there` mounts read-only; there is nothing in it."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    return folder


@pytest.fixture
def try_there(server: Server, locked: Path, run: Start) -> Try:
    """Runs a command while `locked`, or another folder, is mounted read-only in a mount namespace."""
    if not server.mounts:
        pytest.skip("needs Linux with user namespaces, to mount a folder read-only")

    def begin(*arguments: str | Path, folder: Path = locked, **limits: Any) -> CompletedProcess[str]:
        before = [["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)]]
        done = run(*arguments, before=before, after=[["umount", str(folder)]], **limits).done()
        assert list(locked.iterdir()) == [], "it was not read-only"
        return done

    return begin


def test_training_is_refused(locked: Path, try_there: Try, faults: Any) -> None:
    faults.tried(FAULT, "train")
    line = refusal(try_there(*options("full", locked / "run")), "Read-only file system")
    assert str(locked) in line


def test_export_is_refused_before_it_begins(locked: Path, try_there: Try, digits_run: Run, faults: Any) -> None:
    faults.tried(FAULT, "export")
    done = try_there("export", digits_run.folder, "--out", locked / "bundle")
    assert str(locked) in refusal(done, "Read-only file system")
    assert "exporting" not in done.stderr


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("compile", ["--backend", "openvino"]),
        ("tune", ["--seconds", "0.5", "--threads", "1"]),
    ],
)
def test_cache_is_told(
    locked: Path, try_there: Try, small_bundle: Path, command: str, more: list[str], faults: Any
) -> None:
    faults.tried(FAULT, command)
    done = try_there(command, small_bundle, *more, environment={CACHE_VARIABLE: str(locked / "cache")})
    assert str(locked / "cache") in refusal(done, "Read-only file system")
    assert "p50" not in done.stderr


@pytest.mark.parametrize(
    ("command", "more", "name"), [("bench", ["--report"], "report"), ("predict", ["golden", "--out"], "labels.jsonl")]
)
def test_result_is_told(
    locked: Path, try_there: Try, small_bundle: Path, command: str, more: list[str], name: str, faults: Any
) -> None:
    faults.tried(FAULT, f"{command} {more[-1]}")
    paths = [small_bundle / each if each == "golden" else each for each in more]
    line = refusal(try_there(command, small_bundle, *paths, locked / name), "Read-only file system")
    assert str(locked / name) in line
    assert ".new-" not in line


@pytest.mark.parametrize("command", ["verify", "predict"])
def test_bundle_and_cache_that_cannot_be_written_are_read(
    try_there: Try, small_bundle: Path, command: str, faults: Any
) -> None:
    faults.tried(FAULT, f"{command} a bundle there")
    more = [small_bundle / "golden" / "000.png"] if command == "predict" else []
    environment = {CACHE_VARIABLE: str(small_bundle / "cache")}
    done = try_there(command, small_bundle, *more, folder=small_bundle, environment=environment)
    assert done.returncode == 0, done.stderr
