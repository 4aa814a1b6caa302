"""What a larger teacher is worth to a small student: the same training with and without it, test top-1 over seeds.

    python -m edgewright.benchmarks.peers.distillation --teacher RUN [--data DATA] [--json]

The peer is the same student, trained by us without the teacher: same data, epochs and seeds, each in a process of its own,
with and without by turns. Seconds are given beside: a teacher costs time, too.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.peers.sides import default_data, default_weights, machine, ours, run_script
from edgewright.runtime.console import emit_json, print_table
from edgewright.train.backbones.weights import BUILTIN_BACKBONE
from edgewright.train.run import read_run

__all__ = ["compare_teaching"]


def compare_teaching(
    data: str, weights: str, teacher: str, teacher_weights: str, *, student: str, seeds: int, **config: Any
) -> dict[str, Any]:
    """Train `student` for each of `seeds` seeds with and without `teacher`.

    Args:
        data: A folder with a test split.
        weights: The student's.
        teacher: A run folder, or a backbone's name.
        teacher_weights: Of a teacher that is no run.
        student: Backbone.
        seeds: How many.
        config: Further fields of TrainConfig.

    Returns:
        `ours` (taught) and `peer` (not) with the mean `top1` (test) and its `top1_of_each_seed`, and `points` between.
    """
    common: dict[str, Any] = {"data": data, "backbone": student, "weights": weights, "strategy": "full", **config}
    # Usual without a teacher, but not with one: it would be the difference, too.
    common["mixup"] = 0.0
    taught: dict[str, Any] = {"teacher": teacher, "teacher_weights": teacher_weights}
    facts = machine()
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for seed in range(seeds):
        found["peer"].append(ours(f"without a teacher, seed {seed}", seed=seed, **common).run())
        found["ours"].append(ours(f"with a teacher, seed {seed}", seed=seed, **common, **taught).run())
    rows = {
        name: {
            "top1": mean(run["top1"] for run in runs),
            "val_top1": mean(run["val_top1"] for run in runs),
            "seconds": mean(run["seconds"] for run in runs),
            "top1_of_each_seed": [run["top1"] for run in runs],
        }
        for name, runs in found.items()
    }
    return {
        **rows,
        "points": 100 * (rows["ours"]["top1"] - rows["peer"]["top1"]),
        "student": student,
        "teacher": teacher,
        "teacher_top1": read_run(Path(teacher)).record.test_top1 if Path(teacher).is_dir() else None,
        "seeds": seeds,
        "device": facts,
    }


def main(
    teacher: Annotated[str, typer.Option(help="A run that knows the same classes, or a backbone's name.")],
    data: Annotated[
        Optional[Path], typer.Option(help="A folder with a test split. (default: ../shared/data/clothing)")
    ] = None,
    student: Annotated[str, typer.Option(help="A torchvision classification model.")] = BUILTIN_BACKBONE,
    weights: Annotated[
        Optional[str], typer.Option(help="The student's. (default: builtin, or ../shared/weights/STUDENT-imagenet.pth)")
    ] = None,
    teacher_weights: Annotated[
        Optional[str],
        typer.Option(help="Of a teacher that is no run. (default: ../shared/weights/TEACHER-imagenet.pth)"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    imgsz: Annotated[int, typer.Option(min=16, help="The student's input size, in pixels.")] = 128,
    distill_weight: Annotated[float, typer.Option(min=0, max=1, help="The teacher's share of the loss.")] = 0.5,
    distill_temperature: Annotated[float, typer.Option(min=0.1, max=100)] = 2.0,
    per_class: Annotated[
        Optional[int], typer.Option(min=1, help="Only so many training pictures of each class, for a quick look.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure both."""
    is_run = Path(teacher).is_dir()
    student_weights = (
        "builtin" if weights is None and student == BUILTIN_BACKBONE else default_weights(weights, student)
    )
    document = compare_teaching(
        default_data(data),
        student_weights,
        teacher,
        "imagenet" if is_run else default_weights(teacher_weights, teacher),
        student=student,
        seeds=seeds,
        epochs=epochs,
        imgsz=imgsz,
        distill_weight=distill_weight,
        distill_temperature=distill_temperature,
        per_class=per_class,
    )
    if json:
        emit_json(document)
    print_table(
        f"{student}, {imgsz} px, {epochs} epochs: {document['points']:+.1f} points with {teacher}",
        ("", "test top-1, mean", "each seed", "seconds"),
        [
            (
                name,
                f"{row['top1']:.4f}",
                ", ".join(f"{top1:.4f}" for top1 in row["top1_of_each_seed"]),
                f"{row['seconds']:.0f}",
            )
            for name, row in (("with a teacher", document["ours"]), ("without", document["peer"]))
        ],
    )


if __name__ == "__main__":
    run_script(main)
