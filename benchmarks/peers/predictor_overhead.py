"""What the classifier adds to the engine's own time, on a prepared tensor.

    python -m edgewright.benchmarks.peers.predictor_overhead BUNDLE [--json]

Engine and classifier are called in bursts that take turns; the ratio of their medians is what is claimed. The engine
gets its tensor in the layout that it wants; where that is another than the bundle's, turning it is the classifier's work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from edgewright.benchmarks.device import device_facts
from edgewright.benchmarks.peers.sides import run_script
from edgewright.runtime.backends import load_backend
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.classifier import Classifier, load_request
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.preprocess import in_layout
from edgewright.runtime.timing import interleaved_latencies_ms


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="For each of the two, per artefact.")] = 4.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure `Classifier.predict_tensor` against the engine alone, for every artefact that runs here."""
    opened = open_bundle(bundle)
    vector = opened.manifest.golden[0]
    pixels = np.frombuffer(opened.read(vector.tensor), np.uint8).reshape(1, *opened.manifest.input.shape[1:])
    rows = []
    for artefact in runnable_artefacts(opened, None):
        engine = load_backend(artefact.backend, load_request(opened, artefact))
        feeds = {opened.manifest.input.name: in_layout(pixels, artefact.layout)}
        with Classifier(opened, artefact) as classifier:
            calls: dict[str, Callable[[], object]] = {
                "engine": partial(engine.run, feeds),
                "ours": partial(classifier.predict_tensor, pixels),
            }
            samples = interleaved_latencies_ms(calls, seconds=seconds, rounds=20)
        engine.close()
        medians = {name: float(np.median(values)) for name, values in samples.items()}
        rows.append(
            {
                "artefact": artefact.name,
                "engine_ms": medians["engine"],
                "ours_ms": medians["ours"],
                "ratio": medians["ours"] / medians["engine"],
                "samples": len(samples["ours"]),
            }
        )
    if json:
        emit_json({"cpu": device_facts().cpu, "artefacts": rows})
    print_table(
        f"predictor overhead, {bundle}",
        ("artefact", "engine p50 ms", "classifier p50 ms", "ratio"),
        [(row["artefact"], f"{row['engine_ms']:.3f}", f"{row['ours_ms']:.3f}", f"{row['ratio']:.3f}") for row in rows],
    )


if __name__ == "__main__":
    run_script(main)
