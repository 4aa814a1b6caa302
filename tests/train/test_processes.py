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
from edgewright.train.processes import Processes, join_processes
from edgewright.train.run import Run, read_run
from edgewright.train.trainer import train

RECIPE = ["digits", "--backbone", "mobilenet_v3_small", "--weights", "builtin", "--imgsz", "32", "--per-class", "6"]

EVALUATE = """
import sys
from pathlib import Path
import numpy as np
from edgewright.train.evaluation import predict_split
from edgewright.train.processes import join_processes
from edgewright.train.run import read_run

run, out = read_run(Path(sys.argv[1])), Path(sys.argv[2])
processes = join_processes("cpu")
for split, count in (("test", None), ("val", 40), ("train", 5)):
    samples = run.data().splits[split][:count]
    result = predict_split(run.network(), samples, run.record.preprocess, processes, None)
    np.save(out / f"{split}-{processes.world}-{processes.rank}.npy", result.logits)
"""


def launch(*arguments: str | Path, processes: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m module`, in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
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


@pytest.mark.slow
def test_two_processes_evaluate_to_the_image_as_one_does(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text(EVALUATE)
    for processes in (1, 2):
        done = launch(script, run.folder, tmp_path, processes=processes, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    # 269 pictures are nine batches, 40 are two, and five leave the second process without any.
    for split, count in (("test", 269), ("val", 40), ("train", 5)):
        alone = np.load(tmp_path / f"{split}-1-0.npy")
        assert alone.shape == (count, 10)
        for rank in (0, 1):
            shared = np.load(tmp_path / f"{split}-2-{rank}.npy")
            assert np.array_equal(shared.argmax(axis=1), alone.argmax(axis=1))
            assert np.abs(shared - alone).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "partial", "auto"])
def test_two_processes_train_one_run_and_one_of_them_speaks(tmp_path: Path, strategy: str) -> None:
    command = ["-m", "edgewright", "train", *RECIPE, "--strategy", strategy, "--epochs", "2", "--batch", "12"]
    done = launch(*command, "--checkpoint-s", "0", "--out", "run", "--json", processes=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    record = read_run(tmp_path / "run").record
    assert (record.processes, record.strategy) == (2, strategy)
    assert document["val"]["top1"] == record.val_top1 > 0.3
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    spoken = [line for line in done.stderr.splitlines() if line.startswith(f"{strategy}: mobilenet_v3_small")]
    assert len(spoken) == 1, done.stderr


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Same batches, same order; only the sums are done in two parts."""
    command = ["-m", "edgewright", "train", *RECIPE, "--strategy", "full", "--epochs", "2", "--batch", "12"]
    for processes in (1, 2):
        done = launch(*command, "--out", str(processes), processes=processes, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    alone, shared = (read_run(tmp_path / name).network().state_dict() for name in ("1", "2"))
    start = {name: value.float() for name, value in alone.items()}
    for name, value in start.items():
        assert (shared[name].float() - value).norm() <= 1e-2 * value.norm() + 1e-3, name


@pytest.mark.slow
def test_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    command = ["-m", "edgewright", "train", *RECIPE, "--strategy", "full", "--epochs", "1", "--batch", "15"]
    done = launch(*command, "--out", "run", processes=2, cwd=tmp_path)
    assert done.returncode != 0
    assert "--batch 15 cannot be shared evenly by 2 processes. Use a multiple of 2." in done.stderr
