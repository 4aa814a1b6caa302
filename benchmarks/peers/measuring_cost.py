"""What measuring costs: a request's time as `edgewright bench` reports it, the machine watched, against the bare call's.

    python -m edgewright.benchmarks.peers.measuring_cost BUNDLE [--json]

Both label the same pictures in turns. A bundle whose requests take a millisecond shows most: the cost is the same for all.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Optional

import numpy as np
import typer

from edgewright.benchmarks.conditions import Watch
from edgewright.benchmarks.energy import open_energy_meter
from edgewright.benchmarks.peers.sides import machine, run_script
from edgewright.benchmarks.subjects import Configuration, golden_pictures, open_subjects
from edgewright.runtime.backends import DEFAULT_SETTINGS
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.timing import burst_latencies_ms

__all__ = ["measure_cost"]

_TURNS = 20


def measure_cost(bundle: Path, artefact: str | None, *, seconds: float) -> dict[str, Any]:
    """Medians in milliseconds: of the bare call, and of what a measurement reports while the machine is watched."""
    opened = open_bundle(bundle)
    chosen = opened.manifest.artefact(artefact or opened.manifest.recommended)
    wanted = [Configuration(chosen, available_cores(), 1, main=True)]
    bare: list[float] = []
    reported: list[float] = []
    with open_subjects(opened, wanted, DEFAULT_SETTINGS) as (subject,):
        source = cycle(golden_pictures(opened))
        for number in range(2 * _TURNS):
            if number % 2 == 0:
                bare += burst_latencies_ms(lambda: subject.classifier(next(source)), seconds / _TURNS)
                continue
            meter = open_energy_meter()
            with Watch():
                end = perf_counter() + seconds / _TURNS
                while perf_counter() < end:
                    reported.append(subject.answer(subject.next_request())[0])
            if meter is not None:
                meter.close()
    return {
        "artefact": chosen.name,
        "bare_ms": float(np.median(bare)),
        "reported_ms": float(np.median(reported)),
        "cost_us": 1e3 * (float(np.median(reported)) - float(np.median(bare))),
        "ratio": float(np.median(reported)) / float(np.median(bare)),
        "samples": len(reported),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    artefact: Annotated[Optional[str], typer.Option(help="Of the bundle. (default: the recommended one)")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="For each of the ways.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare the bare call with the measured one."""
    facts = machine()
    document = measure_cost(bundle, artefact, seconds=seconds)
    if json:
        emit_json({**document, "device": facts})
    print_table(
        f"what measuring costs, {document['artefact']}",
        ("bare call, p50 ms", "reported p50 ms", "cost, microseconds", "ratio"),
        [
            (
                f"{document['bare_ms']:.4f}",
                f"{document['reported_ms']:.4f}",
                f"{document['cost_us']:.1f}",
                f"{document['ratio']:.4f}",
            )
        ],
    )


if __name__ == "__main__":
    run_script(main)
