"""`edgewright predict`: one picture, or as many as there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgewright.runtime.command_options import DeviceOption, UrlOption
from edgewright.runtime.console import JsonList, Meter, notice, warn
from edgewright.runtime.errors import EdgewrightError, UsageError

if TYPE_CHECKING:
    from edgewright.runtime.explain import MapsFolder
    from edgewright.runtime.pipeline import Result
    from edgewright.runtime.results import ResultsFile
    from edgewright.runtime.rows import Row

__all__ = ["predict_command"]

SOURCES_HELP = (
    "Pictures, folders of pictures, videos, `0` for a camera, @list.txt or @table.csv for paths in a file, `-` for paths on "
    "standard input."
)


def predict_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES_HELP)],
    artefact: Annotated[Optional[str], typer.Option(help="Only this artefact, for example model.int8.ort-x86.")] = None,
    backend: Annotated[
        Optional[str],
        typer.Option(help="onnxruntime, openvino, tensorrt, or remote with --url. (default: the artefact's)"),
    ] = None,
    device: DeviceOption = None,
    threads: Annotated[
        Optional[int],
        typer.Option(
            min=1, max=1024, help="Threads for one inference. (default: all cores for one picture, 1 for many)"
        ),
    ] = None,
    url: UrlOption = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to list.")] = 5,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Pictures whose best score is lower are marked as unknown.")
    ] = 0.0,
    out: Annotated[
        Optional[Path], typer.Option(help="Write results to this .csv, .jsonl or .parquet as they come.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue --out where it was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it is there.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Pictures for one inference; more than 1 pays on a GPU.")
    ] = 1,
    explain: Annotated[
        Optional[Path],
        typer.Option(help="Write into this folder, for each picture, what in it speaks for its label, as a PNG."),
    ] = None,
    in_flight: Annotated[
        Optional[int], typer.Option(min=1, help="Pictures taken and not yet answered, at most. (default: 4 per thread)")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Label pictures, in order. One that cannot be read gets an error, the others their labels."""
    from edgewright.runtime.explain import Explainer, MapsFolder
    from edgewright.runtime.loading import load
    from edgewright.runtime.parallel import available_cores
    from edgewright.runtime.results import ResultsFile, run_record
    from edgewright.runtime.sources import is_live, pictures

    if out is None and (resume or overwrite):
        raise UsageError(f"--{'resume' if resume else 'overwrite'} is about a file of results; give --out as well.")
    if resume and any(is_live(source) for source in sources):
        raise UsageError("--resume cannot find a camera's earlier frames again. Give another --out.")
    found = pictures(sources)
    first = next(found, None)
    if first is None:
        raise UsageError(f"No pictures in {', '.join(sources)}.")
    # A single picture gets all cores; many are labelled side by side, which is faster for all of them together.
    streams = 1 if sources == [first.name] else max(1, available_cores() // (threads or 1))
    found = chain([first], found)
    with ExitStack() as stack:
        classifier = stack.enter_context(
            load(bundle, artefact, backend, threads, device, streams=streams, remote=url, min_score=min_score)
        )
        results = None
        if out is not None:
            record = run_record(classifier, out, top_k)
            results = stack.enter_context(ResultsFile(out, record, resume=resume, overwrite=overwrite))
            results.skip(found)
        maps = None
        if explain is not None:
            maps = MapsFolder(explain, stack.enter_context(Explainer(classifier.bundle, threads)))
        stream = classifier.stream(found, top_k, workers=streams, batch=batch, in_flight=in_flight)
        try:
            count, failed = _consume(stack.enter_context(closing(stream)), results, maps, out, json)
        except KeyboardInterrupt:
            if out is not None:
                notice(f"interrupted; what is done is kept, and the same command with --resume goes on: {out}")
            raise
    if failed:
        raise EdgewrightError(f"{failed} of {count} pictures could not be read; the others have their labels.")


def _consume(
    stream: Iterator[Result], results: ResultsFile | None, maps: MapsFolder | None, out: Path | None, json: bool
) -> tuple[int, int]:
    """Take every result to where it belongs; returns how many rows there are now, and how many of them are errors."""
    from edgewright.runtime.rows import row_of

    count, failed = (results.kept, results.kept_failed) if results else (0, 0)
    watched = results is not None or (sys.stderr.isatty() and not sys.stdout.isatty())
    with ExitStack() as stack:
        meter = stack.enter_context(Meter("pictures")) if watched else None
        document = stack.enter_context(JsonList("predictions")) if json else None
        for result in stream:
            row = row_of(result)
            count += 1
            failed += "error" in row
            if maps and "error" not in row:
                maps.write(result, count)
            if results:
                results.write(row)
            if meter:
                meter.advance()
            if document:
                document.add(_with_timings(row, result))
            elif "error" in row:
                warn(row["error"])
            elif not results:
                others = ", ".join(f"{found['label']} {found['score']:.3f}" for found in row["top_k"][1:3])
                guess = "" if row["known"] else "\tunknown"
                print(f"{row['file']}\t{row['label']}\t{row['score']:.3f}\t({others}){guess}", flush=True)
    if results and meter:
        notice(f"{out}: {count:,} rows, {results.kept:,} of them from before, {failed:,} errors; {meter.rate()}")
    return count, failed


def _with_timings(row: Row, result: Result) -> Row:
    from edgewright.runtime.rows import timings_row

    if result.prediction is None:
        return row
    return row | {"timings_ms": timings_row(result.prediction.timings)}
