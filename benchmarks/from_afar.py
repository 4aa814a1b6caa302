"""`edgewright bench BUNDLE --on user@host`: the same measurement, made on devices, and their figures side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgewright.benchmarks.document import BenchDocument
from edgewright.runtime.console import notice, print_table, warn
from edgewright.runtime.errors import DeployError, EdgewrightError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.deploy.deploy import Parcel

__all__ = ["Afar", "bench_devices", "print_devices", "write_devices"]


@dataclass(frozen=True, slots=True)
class Afar:
    """What came of measuring on several devices.

    Attributes:
        documents: By target.
        failed: Why there is none, by target.
    """

    documents: Mapping[str, BenchDocument]
    failed: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The document that `--on ... --json` prints."""
        return {
            "devices": [{"target": target, **document.as_json()} for target, document in self.documents.items()],
            "failed": dict(self.failed),
        }


def bench_devices(
    bundle: Bundle, targets: Sequence[str], words: Sequence[str], ssh_config: Path | None, *, batch: bool
) -> Afar:
    """Measure on one device after the other. One that fails does not keep the others from being measured.

    Where this bundle is deployed, that is measured; elsewhere it is copied and installed first, and nothing is switched.

    Args:
        bundle: Opened here.
        targets: As `ssh` takes them.
        words: Options of `edgewright bench` there.
        ssh_config: Instead of ~/.ssh/config.
        batch: Ask no questions.
    """
    from edgewright.runtime.deploy.command import pack

    parcel = pack(bundle, None, None)
    documents: dict[str, BenchDocument] = {}
    failed: dict[str, str] = {}
    for target in dict.fromkeys(targets):
        try:
            documents[target] = _bench_device(parcel, target, words, ssh_config, batch=batch)
        except EdgewrightError as error:
            failed[target] = str(error)
            warn(str(error))
    return Afar(documents, failed)


def _bench_device(
    parcel: Parcel, target: str, words: Sequence[str], ssh_config: Path | None, *, batch: bool
) -> BenchDocument:
    from edgewright.runtime.deploy.deploy import Wishes, prepare_deployment, take_steps
    from edgewright.runtime.deploy.ssh import Connection, SshOptions

    with Connection(target, SshOptions(config=ssh_config), batch=batch) as connection:
        deployment = prepare_deployment(connection, parcel, Wishes())
        notice(f"{target}: {deployment.board.name}, Python {deployment.board.python_version}")
        if deployment.deployed is None:
            deployment.check()
            take_steps(deployment, deployment.placing(), notice)
        found = deployment.run("bench", ["bench", "{bundle}", *words, "--json"], there=deployment.deployed, keep=False)
    try:
        return BenchDocument.model_validate_json(json.dumps(found))
    except ValidationError as error:
        raise DeployError(
            f"What `edgewright bench` printed on '{target}' is no measurement that is understood here. "
            "Run `edgewright deploy` again: it brings this version there."
        ) from error


def print_devices(afar: Afar) -> None:
    """Medians side by side: a row for each way to run the model, a column for each device."""
    if len(afar.documents) < 2:
        return
    medians = {
        target: {
            (report.artefact, report.scenario, report.batch): report
            # The last of several wins: that with the fastest number of threads.
            for report in sorted(document.reports, key=lambda report: -report.p50_ms)
        }
        for target, document in afar.documents.items()
    }
    rows = dict.fromkeys(key for found in medians.values() for key in found)
    print_table(
        "p50 ms with the best number of threads",
        ("artefact", "batch", *medians),
        [
            (
                name if scenario == "closed-loop" else f"{name}, {scenario}",
                str(batch),
                *(
                    f"{found[key].p50_ms:.2f} ({found[key].threads or '–'})" if key in found else None
                    for found in medians.values()
                ),
            )
            for key in rows
            for name, scenario, batch in [key]
        ],
    )
    for target, document in afar.documents.items():
        notice(f"{target}: {document.device['cpu']}, {document.device['cores']} cores; in brackets: threads")


def write_devices(afar: Afar, folder: Path) -> None:
    """A report for each device, in a folder of its own."""
    from edgewright.benchmarks.report.writer import write_report
    from edgewright.runtime.deploy.deploy import folder_for

    for target, document in afar.documents.items():
        own = folder / folder_for(target)
        write_report(own, document)
        notice(f"report: {own / 'report.html'}")
