"""Our side of the training comparisons, a process of its own: `train` as it is, handing over after each epoch.

The request holds fields of TrainConfig. Time counts from the call of `train` to its return: reading the data, weights,
compilation, training, evaluation, report and every file of the run folder; not the interpreter's start and the imports.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import ValidationError

from edgewright.benchmarks.peers.sides import Turns, work_in_turns
from edgewright.runtime.errors import UsageError
from edgewright.train.config import TrainConfig
from edgewright.train.trainer import train

_COLUMNS = ("train_top1", "val_top1", "seconds", "train_seconds")


def _work(request: dict[str, Any], turns: Turns) -> dict[str, Any]:
    try:
        config = TrainConfig(**request)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")) from error
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        run = train(
            config.model_copy(update={"out": str(Path(folder) / "run")}), after_epoch=lambda _: turns.hand_over()
        )
        seconds = perf_counter() - started - turns.waited_s
        rows = list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    record = run.record
    return {
        "seconds": seconds,
        "top1": record.test_top1,
        "val_top1": record.val_top1,
        "images": {split: sum(counts.values()) for split, counts in record.counts.items()},
        "imgsz": record.preprocess.crop,
        "train_imgsz": record.train_px,
        "precision": record.precision,
        "note": record.note,
        "epochs": [{name: float(row[name]) for name in _COLUMNS} for row in rows],
    }


if __name__ == "__main__":
    work_in_turns(_work)
