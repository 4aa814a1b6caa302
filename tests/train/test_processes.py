"""Several processes on a CPU evaluate and train as one does, and only the first speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.runtime.errors import UsageError
from edgewright.train.config import TrainConfig
from edgewright.train.evaluation import predict_split
from edgewright.train.processes import Processes, join_processes
from edgewright.train.run import Run, read_run
from edgewright.train.trainer import train

RECIPE = [
    *("digits", "--backbone", "mobilenet_v3_small", "--weights", "builtin", "--imgsz", "32", "--per-class", "6"),
    *("--val-fraction", "0.06", "--test-fraction", "0.06"),
]
FULL = ["--strategy", "full", "--epochs", "2", "--batch", "12"]

SEVERAL = """
import contextlib, json, sys, time
from pathlib import Path
import numpy as np
from edgewright.cli import main
from edgewright.train.evaluation import predict_split
from edgewright.train.processes import join_processes
from edgewright.train import trainer
from edgewright.train.run import read_run

run, out = read_run(Path(sys.argv[1])), Path(sys.argv[2])
processes = join_processes("cpu")
for split, count in (("test", None), ("val", 40), ("train", 5)):
    samples = run.data().splits[split][:count]
    result = predict_split(run.network(), samples, run.record.preprocess, processes, None)
    np.save(out / f"{split}-{processes.rank}.npy", result.logits)
strategies = trainer.run_strategy


def late(job):
    # The files that the first process writes meanwhile must not mislead the second, as they do a run that resumes.
    written, patience = job.folder / "last" / "auto.json", time.monotonic() + 5
    while not written.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    return strategies(job)


for name, arguments in json.loads(sys.argv[3]).items():
    trainer.run_strategy = late if name == "auto" and processes.rank == 1 else strategies
    sys.argv = ["edgewright", *arguments]
    with (
        (out / f"{name}-{processes.rank}.out").open("w") as stdout,
        (out / f"{name}-{processes.rank}.err").open("w") as stderr,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as stopped:
            (out / f"{name}-{processes.rank}.status").write_text(str(stopped.code or 0))
"""


def launch(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m module`, in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=400,
    )


# One process


def test_one_process_does_everything_itself() -> None:
    alone = Processes(torch.device("cpu"))
    model = nn.Linear(2, 2)
    assert alone.is_main
    assert list(alone.share(range(5))) == [0, 1, 2, 3, 4]
    assert alone.gather([3, 1]) == [3, 1]
    assert alone.agree("runs/one") == "runs/one"
    assert alone.mean([1.0, 2.0]) == [1.0, 2.0]
    assert alone.wrap(model) is model
    alone.wait()


@pytest.mark.parametrize("world", [2, 3, 7])
def test_shares_are_the_whole_without_overlap(world: int) -> None:
    parts = [list(Processes(torch.device("cpu"), rank, world).share(range(11))) for rank in range(world)]
    assert sorted(item for part in parts for item in part) == list(range(11))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:nonsense"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    threads = torch.get_num_threads()
    try:
        with pytest.raises(UsageError, match=rf"Device '{device}' cannot be used: .* Use --device auto or cpu"):
            join_processes(device)
    finally:
        torch.set_num_threads(threads)


# Two processes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    return train(
        TrainConfig(
            data="digits",
            backbone="mobilenet_v3_small",
            weights="builtin",
            strategy="head",
            imgsz=32,
            per_class=6,
            out=str(folder),
        )
    )


@pytest.fixture(scope="module")
def several(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind that did one thing after the other: starting them takes longer than each."""
    folder = tmp_path_factory.mktemp("several")
    common = ["train", *RECIPE, "--json"]
    partial = ["--strategy", "partial", "--epochs", "2", "--batch", "12", "--checkpoint-s", "0"]
    # A trial of `auto` has its number of batches; small ones are enough, and a checkpoint now and then.
    auto = ["--strategy", "auto", "--epochs", "2", "--batch", "4", "--checkpoint-s", "1"]
    odd = ["--strategy", "full", "--epochs", "1", "--batch", "15"]
    commands = {
        name: [*common, *recipe, "--out", f"{name}/run"]
        for name, recipe in (("partial", partial), ("auto", auto), ("odd", odd))
    }
    script = folder / "several.py"
    script.write_text(SEVERAL)
    done = launch(script, run.folder, folder, json.dumps(commands), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The command as a launcher starts it."""
    folder = tmp_path_factory.mktemp("full")
    command = ["-m", "edgewright", "train", *RECIPE, *FULL, "--checkpoint-s", "0", "--out", "run", "--json"]
    return folder, launch(*command, cwd=folder)


@pytest.mark.slow
def test_two_processes_evaluate_to_the_image_as_one_does(run: Run, several: Path) -> None:
    # 269 pictures are nine batches, 40 are two, and five leave the second process without any.
    for split, count in (("test", 269), ("val", 40), ("train", 5)):
        samples = run.data().splits[split][:count]
        alone = predict_split(
            run.network(), samples, run.record.preprocess, Processes(torch.device("cpu")), None
        ).logits
        assert alone.shape == (count, 10)
        for rank in (0, 1):
            shared = np.load(several / f"{split}-{rank}.npy")
            assert np.array_equal(shared.argmax(axis=1), alone.argmax(axis=1))
            assert np.abs(shared - alone).max() < 1e-5


def assert_one_run_and_one_voice(folder: Path, strategy: str, stdout: str, stderr: str) -> None:
    document = json.loads(stdout)
    record = read_run(folder / "run").record
    assert (record.processes, record.strategy) == (2, strategy)
    assert document["val"]["top1"] == record.val_top1 > 0.3
    assert [entry.name for entry in folder.iterdir()] == ["run"]
    spoken = [line for line in stderr.splitlines() if line.startswith(f"{strategy}: mobilenet_v3_small")]
    assert len(spoken) == 1, stderr


@pytest.mark.slow
def test_two_processes_train_one_run_and_one_of_them_speaks(
    full: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = full
    assert done.returncode == 0, done.stderr
    assert_one_run_and_one_voice(folder, "full", done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["partial", "auto"])
def test_every_strategy_trains_one_run_in_two_processes(several: Path, strategy: str) -> None:
    stdout, stderr = (
        "".join((several / f"{strategy}-{n}.{kind}").read_text() for n in (0, 1)) for kind in ("out", "err")
    )
    assert [(several / f"{strategy}-{rank}.status").read_text() for rank in (0, 1)] == ["0", "0"], stderr
    assert_one_run_and_one_voice(several / strategy, strategy, stdout, stderr)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    full: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Same batches, same order; only the sums are done in two parts."""
    command = [sys.executable, "-m", "edgewright", "train", *RECIPE, *FULL, "--checkpoint-s", "0", "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    alone, shared = (read_run(folder / "run").network().state_dict() for folder in (tmp_path, full[0]))
    start = {name: value.float() for name, value in alone.items()}
    for name, value in start.items():
        assert (shared[name].float() - value).norm() <= 1e-2 * value.norm() + 1e-3, name


@pytest.mark.slow
def test_batch_that_cannot_be_shared_is_refused(several: Path) -> None:
    refusal = "--batch 15 cannot be shared evenly by 2 processes. Use a multiple of 2."
    for rank in (0, 1):
        assert (several / f"odd-{rank}.status").read_text() == "2"
        assert refusal in (several / f"odd-{rank}.err").read_text()
