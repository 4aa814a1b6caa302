"""Killed without warning at any moment, commands leave the older result or the new one, whole, and can be run again."""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgewright
from edgewright.benchmarks.document import read_document
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.device_cache import CACHE_VARIABLE
from edgewright.runtime.openvino_cache import checked_cache
from edgewright.runtime.tuned import tuned_choice
from edgewright.train.run import Run

from .conftest import OLDER, Command, Start, temporary_files

FAULT = "kill -9"
LONGEST_S = 240.0
# Each program writes a bundle in place of another one, and is killed before its n-th change to the folder, for all n.
REPLACING = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from steps import kill_at_step
from edgewright.runtime import files
from edgewright.runtime.bundle import writing_bundle
source, path = Path(sys.argv[1]), Path(sys.argv[2])
if sys.argv[4] == "two steps":
    files._exchange = lambda first, second: False
for number in range(1, 1000):
    process = os.fork()
    if process == 0:
        kill_at_step(str(path.parent), number)
        with writing_bundle(path) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(status, (path / "manifest.json").exists(), flush=True)
    if status != -9:
        break
"""


def kill_and_repeat(
    begin: Callable[..., Command], folder: Path, whole: Callable[[], None], *, steps: int, moments: int, seed: str
) -> None:
    """Run a command to its end, then kill it before some of its changes to `folder` and at other moments, then run it to
    its end again; `whole` has to hold after each.
    """
    rng = random.Random(seed)

    def complete() -> None:
        done = begin(steps_in=folder).done()
        assert done.returncode == 0, done.stderr
        whole()
        assert temporary_files(folder) == []

    complete()
    changes = len((folder.parent / "log.steps").read_text().splitlines())
    for step in sorted(rng.sample(range(1, changes + 1), min(steps, changes))):
        command = begin(steps_in=folder, kill_at=step)
        assert command.poll(LONGEST_S) == -signal.SIGKILL, f"change {step} of {changes} never came\n{command.said}"
        whole()
    for _ in range(moments):
        command = begin()
        command.poll(rng.uniform(0.0, 1.5))
        command.kill()
        assert command.poll() in (0, -signal.SIGKILL), command.said
        whole()
    complete()


@pytest.mark.parametrize("way", ["exchange", "two steps"])
def test_bundle_is_replaced_at_once_or_put_back(tmp_path: Path, small_bundle: Path, faults: Any, way: str) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    path = small_bundle.rename(folder / "bundle")
    command = [sys.executable, "-c", REPLACING, str(OLDER / "v1-colours"), str(path), str(Path(__file__).parent), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    lines = done.stdout.splitlines()
    faults.tried(FAULT, "writing a bundle", len(lines) - 1)
    assert lines[-1] == "0 True", done.stdout + done.stderr
    assert len(lines) > 20
    assert {line.split()[0] for line in lines[:-1]} == {"-9"}
    with faults.whole():
        assert open_bundle(path).manifest.name == "colours-0"
        if way == "exchange":
            assert {line.split()[1] for line in lines} == {"True"}, "for an instant there was no bundle"
        assert temporary_files(folder) == []


@pytest.mark.slow
def test_export(tmp_path: Path, run: Start, digits_run: Run, faults: Any) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    out, options = folder / "digits", ("--formats", "onnx", "--precisions", "fp32", "--golden", "1")

    def export(**limits: Any) -> Command:
        return run("export", digits_run.folder, "--out", out, *options, **limits)

    faults.tried(FAULT, "export", 2)
    # While artefacts, golden vectors, report or manifest are written. The test above has each of these moments.
    command = export(steps_in=folder, kill_at=random.Random("export").randint(8, 25))
    assert command.poll(LONGEST_S) == -signal.SIGKILL, command.said
    with faults.whole():
        assert not out.exists()
    command = export()
    command.poll(random.Random("moment").uniform(0.0, 3.0))
    command.kill()
    with faults.whole():
        assert not out.exists() or open_bundle(out)
    done = export().done()
    assert done.returncode == 0, done.stderr
    with faults.whole():
        assert open_bundle(out).manifest.recommended == "model.fp32"
        assert temporary_files(folder) == []


def test_compile(tmp_path: Path, run: Start, small_bundle: Path, faults: Any) -> None:
    cache = tmp_path / "cache"

    def whole() -> None:
        with faults.whole(), edgewright.load(small_bundle, "openvino.fp32", cache=cache) as classifier:
            assert classifier(small_bundle / "golden" / "000.png").label == "red"
            for folder in (cache / "openvino").glob("[!.]*"):
                assert checked_cache(folder) == folder

    faults.tried(FAULT, "compile", 8)
    arguments = ("compile", small_bundle, "--backend", "openvino", "--force")
    begin = functools.partial(run, *arguments, environment={CACHE_VARIABLE: str(cache)})
    kill_and_repeat(begin, cache, whole, steps=5, moments=3, seed="compile")


def test_tune(tmp_path: Path, run: Start, small_bundle: Path, faults: Any) -> None:
    cache = tmp_path / "cache"

    def whole() -> None:
        with faults.whole():
            choice = tuned_choice(open_bundle(small_bundle).manifest, cache)
            assert choice is not None
            assert choice.threads == 1

    faults.tried(FAULT, "tune", 5)
    arguments = ("tune", small_bundle, "--seconds", "0.5", "--threads", "1", "--max-drop", "100")
    begin = functools.partial(run, *arguments, environment={CACHE_VARIABLE: str(cache)})
    kill_and_repeat(begin, cache, whole, steps=3, moments=2, seed="tune")


def test_bench(tmp_path: Path, run: Start, small_bundle: Path, faults: Any) -> None:
    report = tmp_path / "report"

    def whole() -> None:
        with faults.whole():
            assert len(read_document(report / "bench.json").reports) == 2
            assert (report / "report.html").read_text().rstrip().endswith("</html>")

    faults.tried(FAULT, "bench --report", 2)
    arguments = ("bench", small_bundle, "--seconds", "0.1", "--threads", "1", "--batch", "1", "--report", report)
    kill_and_repeat(functools.partial(run, *arguments), report, whole, steps=2, moments=0, seed="bench")


def test_predict_is_continued(tmp_path: Path, run: Start, small_bundle: Path, faults: Any) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    pictures = [small_bundle / "golden" / name for name in ("000.png", "001.jpeg", "002.png")]
    begin = ("predict", small_bundle, *pictures, "--artefact", "model.fp32", "--out")
    done = run(*begin, folder / "whole.jsonl", steps_in=folder).done()
    assert done.returncode == 0, done.stderr
    changes = len((tmp_path / "log.steps").read_text().splitlines())
    faults.tried(FAULT, "predict --out", changes)
    for step in range(1, changes + 1):
        out = folder / "labels.jsonl"
        for left in folder.glob("labels*"):
            left.unlink()
        command = run(*begin, out, steps_in=folder, kill_at=step)
        assert command.poll(LONGEST_S) == -signal.SIGKILL, command.said
        resumed = run(*begin, out, "--resume").done()
        assert resumed.returncode == 0, resumed.stderr
        with faults.whole():
            assert labels(out) == labels(folder / "whole.jsonl")
            assert temporary_files(folder) == []


def labels(out: Path) -> list[str]:
    return [json.loads(line)["label"] for line in out.read_text().splitlines()]
