"""`edgewright bench BUNDLE` and `edgewright bench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from edgewright.benchmarks.compare_command import compare_command
from edgewright.runtime.command_options import DeviceOption
from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.deploy.command import SshConfigOption
from edgewright.runtime.errors import DeployError, UsageError

if TYPE_CHECKING:
    from edgewright.benchmarks.bench import BenchPlan
    from edgewright.benchmarks.document import BenchDocument
    from edgewright.benchmarks.reports import LatencyReport, LayerTime, Scenario
    from edgewright.runtime.bundle import Bundle

__all__ = ["bench_app", "print_bench"]

_SLOWEST = 10
"""Layers of each artefact that are shown."""


class _RunByDefault(TyperGroup):
    """`bench BUNDLE` measures; only what is called like another command is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Measure latency on this machine, or compare two measurements."
)
bench_app.command("compare")(compare_command)


def print_bench(title: str, document: BenchDocument) -> None:
    """The tables a person sees: what makes figures doubtful, the figures, the machine."""
    for finding in document.findings or ():
        warn(finding)
    loops = [report for report in document.reports if not report.scenario.startswith("mlperf")]
    print_table(
        title,
        ("artefact", "threads", "batch", "top-1", "drop", "p50 ms", "±", "p90 ms", "p99 ms", "img/s", "MB", ""),
        [_row(report) for report in document.reports],
    )
    if loops:
        print_table(
            "where the time goes, p50 ms",
            ("artefact", "threads", "batch", "decode", "resize", "copy in", "engine", "copy out", "label"),
            [
                (*_names(report), *(f"{value:.2f}" for value in report.stages_ms.values()))
                for report in loops
                if report.batch == min(each.batch for each in loops)
            ],
        )
    facts = document.device
    features = f" ({', '.join(facts['cpu_features'])})" if facts["cpu_features"] else ""
    notice(f"on {facts['cpu']}{features}, {facts['cores']} cores; energy: {document.conditions['energy_source']}")


def _names(report: LatencyReport) -> tuple[str, str, str]:
    mark = "" if report.scenario == "closed-loop" else f", {report.scenario}"
    return report.artefact + mark, "–" if report.threads is None else str(report.threads), str(report.batch)


def _row(report: LatencyReport) -> tuple[str | None, ...]:
    def ms(value: float | None) -> str | None:
        return None if value is None else f"{value:.2f}"

    middle = report.intervals.get("p50")
    half = None if middle is None else f"{(middle.high_ms - middle.low_ms) / 2:.2f}"
    remarks = ["recommended"] if report.recommended else []
    if report.joules_per_image is not None:
        remarks.append(f"{1e3 * report.joules_per_image:.1f} mJ/img")
    if report.details.get("overloaded"):
        remarks.append("overloaded: the queue grows")
    if "compliant" in report.details:
        verdict = "valid" if report.details.get("valid") else "not valid"
        remarks.append(verdict + ("" if report.details["compliant"] else ", non-compliant: too short"))
    return (
        *_names(report),
        None if report.top1 is None else f"{report.top1:.4f}",
        None if report.drop is None else f"{report.drop:+.2f}",
        ms(report.p50_ms),
        half,
        ms(report.p90_ms),
        ms(report.p99_ms),
        f"{report.images_per_s:.0f}",
        None if report.memory_peak_mb is None else f"{report.memory_peak_mb:.0f}",
        "; ".join(remarks),
    )


def parse_counts(text: str | None, what: str, most: int) -> tuple[int, ...]:
    """`1,2,8` as numbers.

    Raises:
        UsageError: something else, or a number out of range.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    # isdecimal() alone would let digits of other scripts and numbers of a thousand figures through.
    if not all(part.isascii() and part.isdecimal() and len(part) < 6 and 1 <= int(part) <= most for part in parts):
        raise UsageError(f"--{what} {text}: expected numbers from 1 to {most}, like 1 or 1,2,8.")
    return tuple(sorted({int(part) for part in parts}))


def parse_scenarios(text: str) -> tuple[Scenario, ...]:
    """Names with commas, each once.

    Raises:
        UsageError: one that there is not; lists those there are.
    """
    from typing import get_args

    from edgewright.benchmarks.reports import Scenario

    known: tuple[Scenario, ...] = get_args(Scenario)
    wanted = [part.strip() for part in text.split(",")]
    if unknown := [part for part in wanted if part not in known]:
        raise UsageError(f"There is no scenario '{unknown[0]}'. There are: {', '.join(known)}.")
    return tuple(scenario for scenario in known if scenario in wanted)


@bench_app.command("run")
def bench_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    artefact: Annotated[Optional[str], typer.Option(help="Only this artefact.")] = None,
    device: DeviceOption = None,
    threads: Annotated[
        Optional[str], typer.Option(help="Threads of one inference, like 1,4. (default: 1 and all cores)")
    ] = None,
    batch: Annotated[
        Optional[str], typer.Option(help="Pictures in one inference, like 1,8. (default: 1,8; 1 for other scenarios)")
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="closed-loop, open-loop, mlperf-single-stream, mlperf-multi-stream, mlperf-offline, mlperf-server; "
            "several with commas."
        ),
    ] = "closed-loop",
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=36000, help="For the closed loop in all; in other scenarios for each artefact."),
    ] = 30.0,
    rate: Annotated[
        Optional[float],
        typer.Option(
            min=0.001,
            max=1e6,
            help="Pictures a second that arrive in open-loop and mlperf-server. (default: half of what is possible)",
        ),
    ] = None,
    mlperf: Annotated[bool, typer.Option("--mlperf", help="MLPerf's official durations: ten minutes each.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also time every layer of every artefact.")] = False,
    samples: Annotated[Optional[Path], typer.Option(help="Write every sample to this .parquet file.")] = None,
    report: Annotated[
        Optional[Path], typer.Option(help="Write report.html, report.md and bench.json into this folder.")
    ] = None,
    on: Annotated[
        Optional[list[str]],
        typer.Option(help="Measure on this device over ssh: user@host, or a name of ~/.ssh/config. May be repeated."),
    ] = None,
    ssh_config: SshConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure latency on this machine: picture to label, stages apart, all ways to run the model taking turns."""
    from edgewright.benchmarks.bench import BATCHES, BenchPlan, bench
    from edgewright.benchmarks.layers import layer_tables
    from edgewright.benchmarks.samples_file import require_samples_file, write_samples
    from edgewright.benchmarks.subjects import usual_threads
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.commands import runnable_artefacts
    from edgewright.runtime.extras import require
    from edgewright.runtime.files import require_writable

    # What is missing is told before minutes of work.
    if report is not None:
        require("bench", "matplotlib")
        require_writable(report)
    if samples is not None:
        require_samples_file(samples)
    opened = open_bundle(bundle)
    scenarios = parse_scenarios(scenario)
    given = parse_counts(threads, "threads", 1024)
    plan = BenchPlan(
        threads=given if given or on else usual_threads(),
        batches=parse_counts(batch, "batch", 1024) or (BATCHES if scenarios == ("closed-loop",) else (1,)),
        scenarios=scenarios,
        seconds=seconds,
        rate=rate,
        official=mlperf,
    )
    others = [each for each in scenarios if each != "closed-loop"]
    if others and min(plan.batches) > 1:
        raise UsageError(f"{others[0]} is for one picture at a time. Leave --batch out, or have 1 among its numbers.")
    if on:
        if samples is not None:
            raise UsageError(
                "--samples: the samples of a measurement with --on stay on the device. Leave one of them out."
            )
        _bench_there(opened, on, ssh_config, _words_of(plan, artefact, device, layers=layers), report, json=json)
        return
    if any(each.startswith("mlperf") for each in others):
        require("bench", "mlperf_loadgen")
    if samples is not None and not {"closed-loop", "open-loop"} & set(scenarios):
        raise UsageError("--samples: LoadGen keeps its own. Add closed-loop or open-loop to --scenario.")
    settings = EngineSettings(device)
    artefacts = runnable_artefacts(opened, artefact, device)
    result = bench(opened, artefacts, plan, settings)
    tables = layer_tables(opened, artefacts, settings) if layers else {}
    document = result.document.model_copy(update={"layers": {name: tuple(table) for name, table in tables.items()}})
    if json:
        emit_json(document.as_json())
    print_bench(str(bundle), document)
    for name, table in tables.items():
        print_layers(name, table)
    if samples is not None:
        write_samples(samples, result)
        notice(f"samples: {samples}")
    if report is not None:
        from edgewright.benchmarks.report.writer import write_report

        write_report(report, document, result.samples, tables)
        notice(f"report: {report / 'report.html'}")
    notice(f"next: edgewright tune {bundle}")


def _words_of(plan: BenchPlan, artefact: str | None, device: str | None, *, layers: bool) -> list[str]:
    """The same plan as options of the command on another machine; without threads, that machine's usual ones."""
    options = {
        "artefact": artefact,
        "device": device,
        "threads": ",".join(map(str, plan.threads)) or None,
        "batch": ",".join(map(str, plan.batches)),
        "scenario": ",".join(plan.scenarios),
        "seconds": f"{plan.seconds:g}",
        "rate": None if plan.rate is None else f"{plan.rate:g}",
    }
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    return [*words, *(["--mlperf"] if plan.official else []), *(["--layers"] if layers else [])]


def _bench_there(
    bundle: Bundle, targets: list[str], ssh_config: Path | None, words: list[str], report: Path | None, *, json: bool
) -> None:
    """Measure on devices, print and write what came back.

    Raises:
        DeployError: a device could not be measured; the others were.
    """
    import sys

    from edgewright.benchmarks.from_afar import bench_devices, print_devices, write_devices

    afar = bench_devices(bundle, targets, words, ssh_config, batch=json or not sys.stdin.isatty())
    if json:
        emit_json(afar.as_json())
    print_devices(afar)
    if report is not None:
        write_devices(afar, report)
    if afar.failed:
        raise DeployError(
            f"Not measured: {', '.join(afar.failed)} ({len(afar.documents)} of {len(targets)} were). See above."
        )


def print_layers(name: str, table: Sequence[LayerTime]) -> None:
    """The slowest layers, and how the time is divided among precisions."""
    print_table(
        f"{name}: the slowest of {len(table)} layers",
        ("layer", "kind", "ran in", "ms", "share"),
        [(one.layer, one.kind, one.precision, f"{one.ms:.3f}", f"{one.share:.1%}") for one in table[:_SLOWEST]],
    )
    shares: dict[str, float] = {}
    for one in table:
        shares[one.precision] = shares.get(one.precision, 0.0) + one.share
    told = ", ".join(f"{share:.0%} {kind or 'untold'}" for kind, share in sorted(shares.items(), key=lambda it: -it[1]))
    notice(f"{name}: time by precision: {told}")
