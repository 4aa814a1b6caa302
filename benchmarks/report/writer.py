"""The files of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.benchmarks.document import BenchDocument
from edgewright.benchmarks.report.bars import plot_latency, plot_stages
from edgewright.benchmarks.report.content import build_content, grouped
from edgewright.benchmarks.report.html import to_html
from edgewright.benchmarks.report.markdown import to_markdown
from edgewright.benchmarks.report.pareto import plot_pareto
from edgewright.benchmarks.reports import LayerTime, SampleSet
from edgewright.runtime.extras import require
from edgewright.runtime.files import atomic_write

__all__ = ["write_report"]


def write_report(
    folder: Path,
    document: BenchDocument,
    samples: Mapping[int, SampleSet] | None = None,
    layers: Mapping[str, Sequence[LayerTime]] | None = None,
) -> None:
    """Write report.html, report.md with its pictures, and bench.json into `folder`, which is made.

    Args:
        folder: Where; files of these names are replaced, each at once.
        document: What was measured.
        samples: Raw times by index into the document's reports, to show how they scatter to the slowest; without them
            percentiles are drawn.
        layers: Times of single layers, by what was measured; without them, those of the document.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("bench", "matplotlib")
    known = {index: each for index, each in (samples or {}).items() if len(each.total_ms)}
    groups = grouped(document.reports)
    # Only what people ask for first has a front: accuracy is the same whatever the batch.
    drawn = [
        plot_pareto([document.reports[index] for index in groups[0].rows], groups[0].title),
        *(plot_latency(document.reports, group, known) for group in groups),
        *(plot_stages(document.reports, group) for group in groups),
    ]
    pictures = [picture for picture in drawn if picture is not None]
    content = build_content(document, document.layers if layers is None else layers)
    for picture in pictures:
        atomic_write(folder / f"{picture.slug}.png", picture.png)
    atomic_write(folder / "report.md", to_markdown(content, pictures))
    atomic_write(folder / "report.html", to_html(content, pictures))
    atomic_write(folder / "bench.json", json.dumps(document.as_json(), indent=2, allow_nan=False) + "\n")
