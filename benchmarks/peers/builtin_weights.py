"""What the built-in weights are worth: a head on their frozen features against a head on frozen random weights.

    python -m edgewright.benchmarks.peers.builtin_weights [--clothing DATA] [--json]

Digits with 10 training pictures per class, 5 seeds; and, if a folder of pictures is given, that folder, 3 seeds. Test
top-1. Everything but the weights is the same: backbone, input size, pictures, solver.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, print_table
from edgewright.train.backbones.weights import BUILTIN_BACKBONE, preprocess_for
from edgewright.train.config import TrainConfig
from edgewright.train.trainer import train


def _test_top1(data: str, weights: str, seed: int, imgsz: int, per_class: int | None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=data,
            backbone=BUILTIN_BACKBONE,
            weights=weights,
            strategy="head",
            imgsz=imgsz,
            per_class=per_class,
            seed=seed,
            out=str(Path(folder) / "run"),
        )
        top1 = train(config).record.test_top1
    assert top1 is not None
    return top1


def main(
    clothing: Annotated[Optional[Path], typer.Option(help="A folder of pictures with a test split.")] = None,
    imgsz: Annotated[Optional[int], typer.Option(help="Input size for it. (default: that of the weights)")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure both, seed by seed."""
    own_size = preprocess_for(BUILTIN_BACKBONE, "builtin", None, False).crop
    tasks: list[tuple[str, str, int, int, int | None]] = [("digits, 10 per class", "digits", 5, own_size, 10)]
    if clothing is not None:
        tasks.append((clothing.name, str(clothing), 3, imgsz or own_size, None))
    rows: list[dict[str, Any]] = []
    for name, data, seeds, size, per_class in tasks:
        found = {
            weights: [_test_top1(data, weights, seed, size, per_class) for seed in range(seeds)]
            for weights in ("builtin", "none")
        }
        rows.append(
            {
                "data": name,
                "imgsz": size,
                "builtin": found["builtin"],
                "random": found["none"],
                "builtin_mean": mean(found["builtin"]),
                "random_mean": mean(found["none"]),
                "points": 100 * (mean(found["builtin"]) - mean(found["none"])),
            }
        )
    if json:
        emit_json({"backbone": BUILTIN_BACKBONE, "tasks": rows})
    print_table(
        f"{BUILTIN_BACKBONE}, head on frozen features, test top-1 (mean ± standard deviation over seeds)",
        ("data", "px", "seeds", "built-in", "random", "points gained"),
        [
            (
                row["data"],
                row["imgsz"],
                len(row["builtin"]),
                f"{row['builtin_mean']:.4f} ± {stdev(row['builtin']):.4f}",
                f"{row['random_mean']:.4f} ± {stdev(row['random']):.4f}",
                f"{row['points']:+.1f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    typer.run(main)
