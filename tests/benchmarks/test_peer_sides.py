"""Two sides by turns, each in a real process; where data and weights come from when they are not named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewright.benchmarks.peers.sides import Side, default_data, default_weights, in_turns
from edgewright.benchmarks.peers.time_to_accuracy import parse_budgets
from edgewright.runtime.errors import UsageError

WORKER = """
import sys, time
from pathlib import Path
from edgewright.benchmarks.peers.sides import work_in_turns
from edgewright.runtime.errors import DataError

def work(request, turns):
    print("a library that prints")
    if request.get("refuse"):
        raise DataError("no pictures")
    for epoch in range(request["epochs"]):
        with Path(request["log"]).open("a") as log:
            log.write(request["name"])
        time.sleep(request.get("sleep", 0))
        turns.hand_over()
    return {"name": request["name"], "waited_s": turns.waited_s}

work_in_turns(work)
"""


def side(name: str, log: Path, epochs: int = 3, **request: object) -> Side:
    return Side(name, [sys.executable, "-c", WORKER], {"name": name, "log": str(log), "epochs": epochs, **request})


def test_sides_alternate_and_the_longer_one_goes_on_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second = side("a", log, epochs=2), side("b", log, epochs=4)
    in_turns([first, second])
    assert log.read_text() == "ababbb"
    assert (first.turns, second.turns) == (2, 4)
    assert (first.result["name"], second.result["name"]) == ("a", "b")


def test_a_side_waits_while_the_other_works_and_knows_how_long(tmp_path: Path) -> None:
    quick, slow = side("a", tmp_path / "log", epochs=2), side("b", tmp_path / "log", epochs=2, sleep=0.4)
    in_turns([quick, slow])
    # Twice the other's epoch; the first time its start as well.
    assert quick.result["waited_s"] >= 0.8
    assert slow.result["waited_s"] < 0.4


def test_a_side_that_refuses_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the peer: no pictures"):
        side("the peer", tmp_path / "log", refuse=True).run()


def test_a_side_that_dies_is_an_error_and_the_other_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    other = side("b", log, epochs=1000)
    with pytest.raises(UsageError, match="the peer: ended with status 3"):
        in_turns([other, Side("the peer", [sys.executable, "-c", "raise SystemExit(3)"], {})])
    written = log.read_text()
    time.sleep(0.3)
    assert log.read_text() == written == "b"


def test_data_and_weights_default_to_the_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared" / "data" / "clothing").mkdir(parents=True)
    (tmp_path / "shared" / "weights").mkdir()
    (tmp_path / "shared" / "weights" / "resnet18-imagenet.pth").touch()
    (tmp_path / "project").mkdir()
    monkeypatch.delenv("EDGEWRIGHT_SHARED", raising=False)
    monkeypatch.chdir(tmp_path / "project")
    assert Path(default_data(None)).samefile(tmp_path / "shared" / "data" / "clothing")
    assert Path(default_weights(None, "resnet18")).samefile(tmp_path / "shared" / "weights" / "resnet18-imagenet.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--data DATA, or set EDGEWRIGHT_SHARED"):
        default_data(None)
    monkeypatch.setenv("EDGEWRIGHT_SHARED", str(tmp_path / "shared"))
    assert Path(default_data(None)).samefile(tmp_path / "shared" / "data" / "clothing")
    with pytest.raises(UsageError, match="mobilenet_v2-imagenet"):
        default_weights(None, "mobilenet_v2")


def test_what_is_named_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_SHARED", str(tmp_path / "nothing"))
    assert default_data(tmp_path / "mine") == str(tmp_path / "mine")
    assert default_weights("imagenet", "resnet18") == "imagenet"


@pytest.mark.parametrize("script", ["head_training", "full_training", "time_to_accuracy"])
def test_missing_data_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("EDGEWRIGHT_SHARED", str(tmp_path))
    command = [sys.executable, "-m", f"edgewright.benchmarks.peers.{script}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"edgewright: Nothing at '{tmp_path / 'data' / 'clothing'}'")
    assert done.stderr.count("\n") == 1


def test_budgets_are_durations() -> None:
    assert parse_budgets("5m,15m") == [300.0, 900.0]
    assert parse_budgets("90s,1.5h,20") == [90.0, 5400.0, 20.0]
    with pytest.raises(UsageError, match="5m,15m"):
        parse_budgets("5m,soon")


def test_an_interpreter_without_fastai_is_refused_before_the_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgewright.benchmarks.peers.time_to_accuracy", "--data", str(tmp_path)]
    command += ["--weights", "none", "--fastai-python", str(tmp_path / "python")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot import fastai" in done.stderr
