"""Pictures a second: `Classifier.stream` against a plain loop over `classifier(path)`.

    python -m edgewright.benchmarks.peers.pipeline BUNDLE [--data DATA] [--json]

Real photographs from the disk's cache; passes over them take turns, so that a drift of the machine hits all alike; the
medians are compared. Beside what `stream` does by default, it is measured with batches: that it takes one picture at a time
is a choice that this script can overturn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.device import device_facts
from edgewright.benchmarks.peers.sides import pictures_of, run_script
from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.parallel import available_cores


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    data: Annotated[Optional[Path], typer.Option(help="Pictures. (default: the clothing photographs)")] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures per pass.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Passes of each kind.")] = 5,
    batch: Annotated[int, typer.Option(min=2, help="Batch of the variants that have one.")] = 8,
    artefact: Annotated[Optional[str], typer.Option(help="Only this artefact. (default: all that run here)")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure every artefact that runs here."""
    opened = open_bundle(bundle)
    files = pictures_of(data, images)
    facts = device_facts()
    passes: dict[tuple[str, str], Callable[[], object]] = {}
    with ExitStack() as stack:
        for found in runnable_artefacts(opened, artefact):
            alone = stack.enter_context(Classifier(opened, found))
            side_by_side = EngineSettings(threads=1, streams=available_cores())
            classifier = stack.enter_context(Classifier(opened, found, settings=side_by_side))
            passes[found.name, "loop"] = partial(_loop, alone, files)
            passes[found.name, "stream"] = partial(_stream, classifier, files)
            passes[found.name, f"stream, batch {batch}"] = partial(_stream, classifier, files, batch=batch)
            passes[found.name, f"one worker, batch {batch}"] = partial(
                _stream, alone, files, workers=1, batch=batch, in_flight=4 * batch
            )
        speed = _interleaved(passes, len(files), rounds)
    names = list(dict.fromkeys(name for name, _ in passes))
    rows: list[dict[str, Any]] = [
        {
            "artefact": name,
            "backend": opened.manifest.artefact(name).backend,
            "images_per_s": {side: rate for (other, side), rate in speed.items() if other == name},
            "ratio": speed[name, "stream"] / speed[name, "loop"],
        }
        for name in names
    ]
    if json:
        emit_json({"cpu": facts.cpu, "cores": facts.cores, "images": len(files), "rounds": rounds, "artefacts": rows})
    sides = list(rows[0]["images_per_s"])
    print_table(
        f"pictures a second, {bundle}: median of {rounds} passes over {len(files)}, {facts.cores} cores",
        ("artefact", *sides, "stream / loop"),
        [
            (row["artefact"], *(f"{row['images_per_s'][side]:.1f}" for side in sides), f"{row['ratio']:.2f}")
            for row in rows
        ],
    )


def _loop(classifier: Classifier, files: list[str]) -> None:
    for file in files:
        classifier(file)


def _stream(classifier: Classifier, files: list[str], **how: int) -> None:
    deque(classifier.stream(files, **how), maxlen=0)


def _interleaved(
    passes: dict[tuple[str, str], Callable[[], object]], images: int, rounds: int
) -> dict[tuple[str, str], float]:
    """Median pictures a second of each; the first pass, which loads engines and fills the disk's cache, is not counted."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in passes}
    for _ in range(rounds + 1):
        for key, run in passes.items():
            start = perf_counter()
            run()
            seconds[key].append(perf_counter() - start)
    return {key: images / median(values[1:]) for key, values in seconds.items()}


if __name__ == "__main__":
    run_script(main)
