"""How threads and streams share the cores: latency of one caller, throughput of several, on prepared tensors.

    python -m edgewright.benchmarks.streams BUNDLE [--artefact NAME] [--json]

Settings take turns in short rounds, so that whatever else the machine does disturbs all alike; each figure is the median
over the rounds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Optional

import numpy as np
import numpy.typing as npt
import typer

from edgewright.benchmarks.device import device_facts
from edgewright.benchmarks.peers.sides import run_script
from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.parallel import available_cores


def candidates(cores: int) -> list[EngineSettings]:
    """What is worth comparing: all cores for one inference, one thread each, and halves."""
    pairs = [(cores, None), (1, None), (1, cores), (cores, 1), (max(1, cores // 2), 2)]
    return [EngineSettings(threads=threads, streams=streams) for threads, streams in dict.fromkeys(pairs)]


def measure(classifier: Classifier, pixels: npt.NDArray[np.uint8], callers: int, seconds: float) -> tuple[float, ...]:
    """Pictures per second of all callers together, median and 99th percentile of what one waits, in milliseconds."""
    waits: list[list[float]] = [[] for _ in range(callers)]
    begin = threading.Barrier(callers + 1)

    def call(own: list[float]) -> None:
        begin.wait()
        until = perf_counter() + seconds
        while (start := perf_counter()) < until:
            classifier.run(pixels)
            own.append((perf_counter() - start) * 1e3)

    threads = [threading.Thread(target=call, args=(own,)) for own in waits]
    for thread in threads:
        thread.start()
    begin.wait()
    start = perf_counter()
    for thread in threads:
        thread.join()
    spent = perf_counter() - start
    samples = np.concatenate(waits)
    return len(samples) / spent, float(np.median(samples)), float(np.percentile(samples, 99, method="inverted_cdf"))


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    artefact: Annotated[Optional[str], typer.Option(help="Only this artefact.")] = None,
    callers: Annotated[
        Optional[list[int]], typer.Option(min=1, help="How many call at once. (default: 1, 2, 8)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="For each setting, in each round.")] = 0.5,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare threads and streams for every artefact that runs here."""
    opened = open_bundle(bundle)
    shape = opened.manifest.input.shape[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    # Read before measuring: the measurement itself loads the machine.
    facts = device_facts()
    rows: list[dict[str, object]] = []
    for each in runnable_artefacts(opened, artefact):
        loaded = [(settings, Classifier(opened, each, settings=settings)) for settings in candidates(available_cores())]
        found: dict[tuple[int, int], list[Sequence[float]]] = {}
        for _, classifier in loaded:
            classifier.warm_up(10)
        for _ in range(rounds):
            for index, (_, classifier) in enumerate(loaded):
                for count in callers or [1, 2, 8]:
                    found.setdefault((index, count), []).append(measure(classifier, pixels, count, seconds))
        for (index, count), samples in found.items():
            settings, classifier = loaded[index]
            images_per_s, p50_ms, p99_ms = np.median(np.asarray(samples), axis=0).tolist()
            rows.append(
                {
                    "artefact": each.name,
                    "threads": settings.threads,
                    "streams": classifier.execution.streams,
                    "callers": count,
                    "images_per_s": images_per_s,
                    "p50_ms": p50_ms,
                    "p99_ms": p99_ms,
                }
            )
        for _, classifier in loaded:
            classifier.close()
    if json:
        emit_json({"cpu": facts.cpu, "cores": facts.cores, "load_average": facts.load_average, "rows": rows})
    print_table(
        f"threads and streams, {bundle}, {facts.cores} cores, load before {facts.load_average}",
        ("artefact", "threads", "streams", "callers", "img/s", "p50 ms", "p99 ms"),
        [
            (
                *(row[key] for key in ("artefact", "threads", "streams", "callers")),
                *(f"{row[key]:.1f}" for key in ("images_per_s", "p50_ms", "p99_ms")),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    run_script(main)
