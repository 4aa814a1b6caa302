"""`--compare`: every strategy on the same data, and whether transfer pays."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write
from edgewright.train.config import TrainConfig
from edgewright.train.processes import launched_processes
from edgewright.train.report import plot_compare
from edgewright.train.run import Run
from edgewright.train.trainer import CONFIG, default_folder, train

__all__ = ["Comparison", "compare"]

_STRATEGIES = ("head", "partial", "full", "scratch")


@dataclass(frozen=True)
class Comparison:
    """Finished runs of all strategies, in one folder, and what follows from them."""

    folder: Path
    runs: tuple[Run, ...]
    verdict: str

    @property
    def best(self) -> Run:
        """The run with the best validation."""
        return max(self.runs, key=lambda run: run.record.val_top1)

    def rows(self) -> list[dict[str, Any]]:
        """A document per strategy; `points` are (seconds since its start, validation top-1)."""
        return [
            {
                "strategy": run.record.strategy,
                "run": str(run.folder),
                "val_top1": run.record.val_top1,
                "test_top1": run.record.test_top1,
                "seconds": run.record.seconds,
                "points": _points(run),
            }
            for run in self.runs
        ]


def compare(config: TrainConfig, *, overwrite: bool = False, resume: bool = False) -> Comparison:
    """Train `config` with every strategy; a budget is for each of them.

    Writes compare.json, compare.md and compare.png beside the runs.

    Raises:
        EdgewrightError: see :func:`edgewright.train.trainer.train`; finished runs stay.
    """
    if config.weights == "none":
        raise UsageError("--compare measures what pretrained weights are worth: set --weights to something but 'none'.")
    if launched_processes() > 1:
        raise UsageError("--compare compares times of one process. Start it without a launcher.")
    folder = Path(config.out) if config.out else default_folder(config, "compare")
    if folder.exists() and not (overwrite or resume):
        raise UsageError(f"'{folder}' exists. Choose another --out, continue it with --resume, or --overwrite it.")
    runs = []
    for strategy in _STRATEGIES:
        weights = "none" if strategy == "scratch" else config.weights
        # Built anew, so that what does not go together is refused before hours of work.
        own = config.model_dump() | {
            "strategy": strategy,
            "weights": weights,
            "freeze": config.freeze if strategy == "partial" else None,
            "teacher": config.teacher if strategy in ("full", "scratch") else None,
            "out": str(folder / strategy),
        }
        started = (folder / strategy / CONFIG).is_file()
        notice(f"compare: {strategy}")
        runs.append(train(TrainConfig(**own), overwrite=overwrite, resume=resume and started))
    result = Comparison(folder, tuple(runs), _verdict(runs))
    rows = result.rows()
    atomic_write(folder / "compare.json", json.dumps({"verdict": result.verdict, "strategies": rows}, indent=2))
    atomic_write(folder / "compare.md", _markdown(result))
    plot_compare(rows, folder / "compare.png")
    return result


def _verdict(runs: list[Run]) -> str:
    scratch = next(run for run in runs if run.record.strategy == "scratch")
    transfer = max((run for run in runs if run is not scratch), key=lambda run: run.record.val_top1)
    ours, theirs = transfer.record.val_top1, scratch.record.val_top1
    pictures = sum(transfer.record.counts["val"].values())
    noise = math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / pictures)
    figures = (
        f"'{transfer.record.strategy}' {ours:.4f}, 'scratch' {theirs:.4f}, noise {noise:.4f} on {pictures} "
        "validation pictures"
    )
    if ours - theirs > noise:
        return f"Transfer pays: {figures}."
    if theirs - ours > noise:
        return f"Transfer does not pay here, training from scratch is better: {figures}."
    return f"Transfer does not pay here, it is no better than training from scratch beyond noise: {figures}."


def _points(run: Run) -> list[tuple[float, float]]:
    rows = list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    if run.record.strategy == "head":
        return [(run.record.seconds, run.record.val_top1)]
    # What came before the first epoch: reading, features, the head.
    now = max(0.0, run.record.seconds - sum(float(row["seconds"]) for row in rows))
    points = []
    for row in rows:
        now += float(row["seconds"])
        points.append((now, float(row["val_top1"])))
    return points


def _markdown(result: Comparison) -> str:
    lines = [
        f"# {result.folder.name}",
        "",
        result.verdict,
        "",
        "| strategy | validation top-1 | test top-1 | seconds | |",
        "|---|---:|---:|---:|---|",
    ]
    for run in result.runs:
        record = run.record
        test = "–" if record.test_top1 is None else f"{record.test_top1:.4f}"
        link = f"[report]({run.folder.name}/report.md)"
        lines.append(f"| {record.strategy} | {record.val_top1:.4f} | {test} | {record.seconds:.0f} | {link} |")
    return "\n".join([*lines, "", "![accuracy against time](compare.png)", ""])
