"""The tab on which a bundle is measured on the machine that serves the page."""

from __future__ import annotations

import html
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic
from typing import Any

import gradio as gr

from edgewright.benchmarks.document import BenchDocument
from edgewright.demo.messages import with_sentences
from edgewright.demo.models import DemoModel
from edgewright.runtime.errors import BackendError
from edgewright.runtime.parallel import available_cores

__all__ = ["build_benchmark"]

_BESIDES_S = 10.0
"""For starting, memory and warming up; only the bar depends on it."""


def _command(model: DemoModel, seconds: float) -> list[str]:
    """A process of its own: what the page does meanwhile would be in the figures, and what is measured in the page's way."""
    cores = str(available_cores())
    command = [sys.executable, "-W", "ignore", "-m", "edgewright", "bench", str(model.bundle.path), "--json"]
    return [*command, "--threads", cores, "--batch", "1", "--seconds", str(seconds)]


def _page(document: BenchDocument) -> str:
    """Findings, table and pictures, as the report has them."""
    from edgewright.benchmarks.report.bars import plot_latency, plot_stages
    from edgewright.benchmarks.report.content import grouped
    from edgewright.benchmarks.report.pareto import plot_pareto

    group = grouped(document.reports)[0]
    rows = [document.reports[index] for index in group.rows]
    pictures = [
        plot_pareto(rows, group.title),
        plot_latency(document.reports, group, {}),
        plot_stages(document.reports, group),
    ]
    findings = "".join(f"<li>{html.escape(finding)}</li>" for finding in document.findings or ())
    doubtful = (
        f'<div class="ew-doubtful"><strong>What makes these figures doubtful</strong><ul>{findings}</ul></div>'
        if findings
        else ""
    )

    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    cells = [
        (
            report.artefact,
            "–" if report.top1 is None else f"{report.top1:.1%}",
            ms(report.p50_ms),
            ms(report.p90_ms),
            ms(report.p99_ms),
            f"{report.images_per_s:.0f}",
        )
        for report in sorted(rows, key=lambda report: report.p50_ms)
    ]
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("artefact", "top-1", "p50 ms", "p90 ms", "p99 ms", "pictures/s")
    )
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    facts = document.device
    features = ", ".join(facts["cpu_features"])
    machine = f"{facts['cpu']}{f' ({features})' if features else ''}, {facts['cores']} cores, {facts['system']}"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    drawn = "".join(f'<div class="ew-plot">{picture.svg}</div>' for picture in pictures if picture is not None)
    return (
        f'{doubtful}<div class="ew-scroll"><table class="ew-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f"</table></div>{drawn}<p>Measured on {html.escape(machine)}; {html.escape(versions)}.</p>"
    )


def build_benchmark(models: Mapping[str, DemoModel], chosen: gr.Dropdown) -> None:
    """Add the tab's content."""
    gr.Markdown(
        "From a picture's bytes to its label, one at a time on all cores of this machine; artefacts take turns. Others who use "
        "this page at the same time make it slower."
    )
    with gr.Row():
        seconds = gr.Slider(2, 60, value=10, step=1, label="Seconds of measuring", elem_id="bench-seconds")
        start = gr.Button("Measure", variant="primary", elem_id="bench-start")
        stop = gr.Button("Stop", elem_id="bench-stop")
    state = gr.HTML(elem_id="bench-state")
    result = gr.HTML(elem_id="bench-result")

    # By visitor, so that nobody stops what somebody else has started.
    running: dict[str | None, subprocess.Popen[str]] = {}

    @with_sentences
    def run(name: str, length: float, request: gr.Request) -> Iterator[tuple[Any, Any]]:
        process = subprocess.Popen(  # noqa: S603 - our own command
            _command(models[name], length), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        running[request.session_hash] = process
        begun, pool = monotonic(), ThreadPoolExecutor(1, thread_name_prefix="edgewright-bench")
        try:
            yield _bar(0, "loading and warming up"), ""
            # Read as it comes: a pipe that nobody reads fills, and its writer waits.
            told = pool.submit(lambda: process.communicate()[0])
            while not told.done():
                wait([told], timeout=0.5)
                share = min(0.99, (monotonic() - begun) / (length + _BESIDES_S))
                yield _bar(share, f"measuring, about {share:.0%}"), gr.skip()
            if process.returncode < 0:
                yield _bar(0, "stopped"), gr.skip()
            elif process.returncode > 0:
                raise BackendError(f"`edgewright bench` ended with status {process.returncode}")
            else:
                yield _bar(1, "done"), _page(BenchDocument.model_validate_json(told.result()))
        finally:
            # A visitor who leaves ends this where it waits, and meanwhile Gradio serves nobody: nothing may be waited for.
            process.kill()
            pool.shutdown(wait=False)
            if running.get(request.session_hash) is process:
                del running[request.session_hash]

    def end(request: gr.Request) -> None:
        if (process := running.get(request.session_hash)) is not None:
            process.kill()

    start.click(run, [chosen, seconds], [state, result], api_name="benchmark", concurrency_limit=1)
    stop.click(end, None, None, api_visibility="private", queue=False)


def _bar(share: float, text: str) -> str:
    return (
        f'<p role="status">{html.escape(text)}</p>'
        f'<div class="ew-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}">'
        f'<span style="width:{100 * share:.0f}%"></span></div>'
    )
