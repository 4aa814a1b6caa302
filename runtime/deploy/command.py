"""`edgewright deploy BUNDLE user@host`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import UsageError

if TYPE_CHECKING:
    from edgewright.runtime.bundle import Bundle
    from edgewright.runtime.deploy.deploy import Deployment, Parcel

__all__ = [
    "ExtrasOption",
    "IdentityOption",
    "PythonOption",
    "RootOption",
    "SshConfigOption",
    "SshPortOption",
    "WheelOption",
    "WheelhouseOption",
    "deploy_command",
    "pack",
    "parse_extras",
]

SshPortOption = Annotated[
    Optional[int], typer.Option(min=1, max=65535, help="Port of ssh. (default: as ~/.ssh/config says, else 22)")
]
IdentityOption = Annotated[Optional[Path], typer.Option(help="File of the private key. (default: as ssh finds it)")]
SshConfigOption = Annotated[Optional[Path], typer.Option(help="Instead of ~/.ssh/config.")]
RootOption = Annotated[
    Optional[str], typer.Option(help="Folder on the device. (default: ~/.local/share/edgewright there)")
]
PythonOption = Annotated[
    Optional[str], typer.Option(help="Interpreter on the device. (default: the first of 3.10 or newer)")
]
ExtrasOption = Annotated[
    Optional[str],
    typer.Option(help="Extras to install there, like openvino,serve; none for none. (default: what the bundle needs)"),
]
WheelOption = Annotated[Optional[Path], typer.Option(help="This wheel of edgewright, not the code that is running.")]
WheelhouseOption = Annotated[
    Optional[Path],
    typer.Option(help="Folder of wheels to install from, for a device without internet; pip asks no index."),
]


def parse_extras(text: str | None) -> tuple[str, ...] | None:
    """`openvino,serve` as names.

    Raises:
        UsageError: one that is not for a device.
    """
    if text is None:
        return None
    known = ("openvino", "serve", "bench", "video", "parquet", "demo")
    wanted = tuple(part.strip() for part in text.split(",")) if text != "none" else ()
    if unknown := [part for part in wanted if part not in known]:
        raise UsageError(f"--extras {unknown[0]}: expected some of {', '.join(known)}, with commas, or none.")
    return wanted


def pack(bundle: Bundle, wheel: Path | None, wheelhouse: Path | None) -> Parcel:
    """What goes to the device.

    Raises:
        UsageError: no wheel of ours, or no wheels there.
    """
    from edgewright.runtime.deploy.deploy import Parcel
    from edgewright.runtime.deploy.wheel import build_wheel

    if wheel is not None and not (wheel.is_file() and wheel.name.startswith("edgewright-") and wheel.suffix == ".whl"):
        raise UsageError(f"--wheel '{wheel}': expected a file edgewright-VERSION-py3-none-any.whl.")
    wheels: dict[str, Path] = {}
    if wheelhouse is not None:
        wheels = {
            path.name: path for path in sorted(wheelhouse.glob("*.whl")) if not path.name.startswith("edgewright-")
        }
        if not wheels:
            raise UsageError(f"--wheelhouse '{wheelhouse}': no wheels there. `pip download` fetches them.")
    return Parcel(bundle, build_wheel() if wheel is None else (wheel.name, wheel.read_bytes()), wheels)


def deploy_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `edgewright export` writes it.")],
    target: Annotated[str, typer.Argument(help="user@host, or a name of ~/.ssh/config.")],
    name: Annotated[
        Optional[str],
        typer.Option(help="Under which it is deployed; replaces what has this name. (default: the bundle's)"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the device, print every step, do none.")] = False,
    service: Annotated[
        bool,
        typer.Option("--service", help="Keep it served by systemd: started with the device, restarted on failure."),
    ] = False,
    host: Annotated[str, typer.Option(help="Address on the device that the service listens at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the service.")] = 8000,
    memory_mb: Annotated[
        int, typer.Option(min=64, help="Most memory of the service; with more, it is restarted.")
    ] = 1000,
    tune: Annotated[bool, typer.Option(help="Choose the best artefact there.")] = True,
    bench: Annotated[bool, typer.Option(help="Measure there.")] = True,
    seconds: Annotated[float, typer.Option(min=0.5, max=36000, help="Of measuring, for each of the two.")] = 30.0,
    report: Annotated[
        Optional[Path], typer.Option(help="Where the device's reports go. (default: runs/deploy/TARGET)")
    ] = None,
    ssh_port: SshPortOption = None,
    identity: IdentityOption = None,
    ssh_config: SshConfigOption = None,
    root: RootOption = None,
    python: PythonOption = None,
    extras: ExtrasOption = None,
    wheel: WheelOption = None,
    wheelhouse: WheelhouseOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and ask nothing.")] = False,
) -> None:
    """Copy a bundle to a device over ssh, verify, compile, tune and measure it there, and only then switch over."""
    import sys
    from time import monotonic

    from edgewright.runtime.bundle import open_bundle
    from edgewright.runtime.deploy.deploy import Wishes, folder_for, prepare_deployment, take_steps
    from edgewright.runtime.deploy.service import Service
    from edgewright.runtime.deploy.ssh import Connection, SshOptions
    from edgewright.runtime.files import require_writable

    begun = monotonic()
    wishes = Wishes(
        name=name,
        root=root,
        python=python,
        extras=parse_extras(extras),
        tune=tune,
        bench=bench,
        seconds=seconds,
        service=Service(host, port, memory_mb) if service else None,
    )
    parcel = pack(open_bundle(bundle), wheel, wheelhouse)
    folder = report or Path("runs", "deploy", folder_for(target))
    if not dry_run:
        require_writable(folder)
    options = SshOptions(ssh_port, identity, ssh_config)
    with Connection(target, options, batch=json or not sys.stdin.isatty()) as connection:
        deployment = prepare_deployment(connection, parcel, wishes)
        board = deployment.board
        notice(
            f"{target}: {board.name}, Python {board.python_version}, {deployment.facts['free_mb'] / 1e3:.1f} GB free"
        )
        deployment.check()
        steps = [*deployment.placing(), *deployment.proving(), *deployment.switching()]
        if dry_run:
            taken = [{"name": step.name, "does": step.does, "needed": step.needed} for step in steps]
        else:
            try:
                taken = take_steps(deployment, steps, notice)
            finally:
                _keep(folder, deployment.reports)
    document: dict[str, Any] = {
        "target": target,
        "device": {"kind": board.kind, "name": board.name, "jetpack": board.jetpack, "machine": board.machine},
        "release": deployment.folder,
        "current": deployment.current,
        "steps": taken,
        **{name: deployment.reports.get(name) for name in ("verify", "compile", "tune", "bench")},
        "report": None if dry_run else str(folder),
        "seconds": round(monotonic() - begun, 3),
    }
    if json:
        emit_json(document)
    _tell(bundle, target, deployment, document, dry_run=dry_run)


def _keep(folder: Path, reports: dict[str, Any]) -> None:
    """What the device found, here: `bench.json` is read by `edgewright bench compare`."""
    import json

    from edgewright.runtime.files import atomic_write

    for name, document in reports.items():
        atomic_write(folder / f"{name}.json", json.dumps(document, indent=2, allow_nan=False) + "\n")


def _tell(bundle: Path, target: str, deployment: Deployment, document: dict[str, Any], *, dry_run: bool) -> None:
    if dry_run:
        rows = [(each["name"], "to do" if each["needed"] else "unchanged", each["does"]) for each in document["steps"]]
        print_table(f"{target}: nothing was changed", ("step", "", "what"), rows)
        notice(f"next: edgewright deploy {bundle} {target}")
        return
    rows = [(each["name"], each["state"], f"{each['seconds']:.1f}") for each in document["steps"]]
    print_table(target, ("step", "", "s"), rows)
    if (tuned := document["tune"]) is not None:
        chosen = tuned["chosen"]
        notice(f"fastest there within the permitted loss: {chosen['artefact']}, {chosen['threads']} threads")
    notice(f"there: {deployment.current}/bundle; reports here: {document['report']}; {document['seconds']:.1f} s")
    notice(f"next: edgewright bench {bundle} --on {target}")
