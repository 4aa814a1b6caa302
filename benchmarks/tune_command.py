"""`edgewright tune`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.benchmarks.commands import parse_counts
from edgewright.runtime.command_options import DeviceOption
from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.errors import GateError

if TYPE_CHECKING:
    from edgewright.benchmarks.tuning import Accuracy, Candidate, Tuning
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.manifest import Artefact

__all__ = ["tune_command"]


def tune_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Points of top-1 that may be lost against the trained model.")
    ] = 1.0,
    target_ms: Annotated[
        Optional[float],
        typer.Option(min=0.001, max=1e6, help="Take the most accurate within this median, not the fastest."),
    ] = None,
    max_memory: Annotated[
        Optional[float], typer.Option(min=1, max=1e6, help="Megabytes that a process may take with it.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="Labelled pictures to measure accuracy with here. (default: as exported)")
    ] = None,
    device: DeviceOption = None,
    threads: Annotated[
        Optional[str], typer.Option(help="Threads to try, like 1,4. (default: 1, half and all of the cores)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=36000, help="Measuring time in all.")] = 30.0,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was chosen before, and do nothing else.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find the best artefact and number of threads on this device; `load`, `predict` and `serve` use it from then on."""
    from edgewright.benchmarks.conditions import Watch
    from edgewright.benchmarks.device import device_facts
    from edgewright.benchmarks.memory import artefact_memory_mb
    from edgewright.benchmarks.tuning import Limits, choose, measure_candidates
    from edgewright.runtime.backends import EngineSettings
    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.commands import runnable_artefacts
    from edgewright.runtime.device_cache import device_cache
    from edgewright.runtime.files import require_writable
    from edgewright.runtime.tuned import forget_choice

    opened = open_bundle(bundle)
    if forget:
        found = forget_choice(opened.manifest)
        notice("forgotten; the bundle's recommendation holds again" if found else "nothing was chosen for this bundle")
        if json:
            emit_json({"forgotten": found})
        return
    require_writable(device_cache("tuned"))
    limits, settings = Limits(max_drop, target_ms, max_memory), EngineSettings(device)
    counts = parse_counts(threads, "threads", 1024) or _default_threads()
    artefacts = runnable_artefacts(opened, None, device)
    accuracies = _accuracies(opened, artefacts, data, settings)
    memory: dict[str, float] = {}
    if max_memory is not None:
        measured = {each.name: artefact_memory_mb(bundle, each.name, device) for each in artefacts}
        memory = {name: megabytes for name, megabytes in measured.items() if megabytes is not None}
        if len(memory) < len(measured):
            warn("this system does not tell how much memory a process took: --max-memory is not held against those")
    with Watch() as watch:
        candidates = measure_candidates(
            opened, artefacts, accuracies, memory, counts, limits, settings=settings, seconds=seconds
        )
    tuning = choose(candidates, limits)
    findings = watch.conditions.findings
    for finding in findings:
        warn(finding)
    _print(bundle, tuning)
    if tuning.chosen is not None:
        _keep(opened, tuning.chosen, device)
    if json:
        emit_json(
            {
                "device": asdict(device_facts()),
                "chosen": None if tuning.chosen is None else asdict(tuning.chosen),
                "candidates": [asdict(each) for each in tuning.candidates],
                "limits": asdict(limits),
                "findings": list(findings),
            }
        )
    if tuning.chosen is None:
        raise GateError(f"Nothing in '{bundle}' keeps the limits here; see the reasons above. Nothing was remembered.")
    notice(f"next: edgewright predict {bundle} PICTURE    (takes {tuning.chosen.artefact} from now on)")


def _default_threads() -> tuple[int, ...]:
    from edgewright.runtime.parallel import available_cores

    cores = available_cores()
    return tuple(sorted({1, max(1, cores // 2), cores}))


def _accuracies(
    bundle: Bundle, artefacts: list[Artefact], data: Path | None, settings: EngineSettings
) -> dict[str, Accuracy]:
    """As the bundle has them, or measured here on `data`; the trained model is then as good as the best float artefact."""
    from edgewright.benchmarks.tuning import Accuracy

    if data is None:
        if all(artefact.drop is None for artefact in artefacts):
            warn("the bundle knows no accuracies, so none is held against an artefact; --data measures them here")
        return {artefact.name: Accuracy(artefact.top1, artefact.drop) for artefact in artefacts}
    from edgewright.runtime.validate import labelled_pictures, validate

    pictures = labelled_pictures(data, bundle.manifest.labels, None)
    found = {one.name: one.top1 for one in validate(bundle, artefacts, pictures, settings).artefacts}
    best = max([found[each.name] for each in artefacts if each.precision == "fp32"] or found.values())
    return {name: Accuracy(top1, 100 * (best - top1)) for name, top1 in found.items()}


def _keep(bundle: Bundle, chosen: Candidate, device: str | None) -> None:
    from datetime import datetime, timezone

    from edgewright.runtime.tuned import TunedChoice, device_fingerprint, keep_choice, manifest_sha256

    assert chosen.p50_ms is not None
    choice = TunedChoice(
        bundle=bundle.manifest.name,
        manifest_sha256=manifest_sha256(bundle.manifest),
        fingerprint=device_fingerprint(),
        artefact=chosen.artefact,
        device=device,
        threads=chosen.threads,
        p50_ms=chosen.p50_ms,
        tuned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    path = keep_choice(choice, bundle.manifest)
    notice(f"remembered for this device: {path}")


def _print(bundle: Path, tuning: Tuning) -> None:
    def figure(value: float | None, digits: int) -> str | None:
        return None if value is None else f"{value:.{digits}f}"

    def row(each: Candidate) -> tuple[Any, ...]:
        half = None if each.interval is None else (each.interval.high_ms - each.interval.low_ms) / 2
        figures = (figure(each.top1, 4), figure(each.drop, 2), figure(each.p50_ms, 2), figure(half, 2))
        return each.artefact, each.threads or "–", *figures, each.rejected or "chosen"

    print_table(
        str(bundle),
        ("artefact", "threads", "top-1", "drop", "p50 ms", "±", ""),
        [row(each) for each in sorted(tuning.candidates, key=lambda one: (bool(one.rejected), one.p50_ms or 1e9))],
    )
