"""A bundle to a device: what is to be done is found first, then done step by step; a step that is done is not done again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from edgewright.runtime.bundle import MANIFEST_FILE, Bundle
from edgewright.runtime.console import warn
from edgewright.runtime.deploy.board import Board, Environment, board_of, choose_environment
from edgewright.runtime.deploy.service import Service, health_of, unit_text
from edgewright.runtime.deploy.ssh import Connection
from edgewright.runtime.errors import DeployError, GateError
from edgewright.runtime.files import sha256_of, sha256_of_file

__all__ = ["Deployment", "Parcel", "Step", "Wishes", "folder_for", "prepare_deployment", "take_steps"]

Tell = Callable[[str], None]

_READY_WAIT_S = 60.0
_RESENT = 2
"""How often a file is sent whose checksum is wrong there."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes to the device.

    Attributes:
        bundle: Opened, so every checksum was right.
        wheel: Name and content of edgewright's.
        wheelhouse: Wheels of what it needs, for a device that has no index to install from.
    """

    bundle: Bundle
    wheel: tuple[str, bytes]
    wheelhouse: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person wants otherwise than usual.

    Attributes:
        name: Under which it is deployed; what had this name is replaced. None: the bundle's.
        root: Folder on the device. None: `~/.local/share/edgewright`.
        python: Interpreter on the device. None: the first that is new enough.
        extras: Of edgewright, to install. None: what fits.
        tune: Whether to tune there.
        bench: Whether to measure there.
        seconds: Of measuring, for each of the two.
        service: How to serve; None: no unit is written.
    """

    name: str | None = None
    root: str | None = None
    python: str | None = None
    extras: tuple[str, ...] | None = None
    tune: bool = True
    bench: bool = True
    seconds: float = 30.0
    service: Service | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: For the report, and for what is kept on the device.
        does: For people; what would be run, where something is run.
        needed: False if the device is already as it would be afterwards.
        act: Does it.
    """

    name: str
    does: str
    needed: bool
    act: Callable[[], object]


def slug_of(name: str) -> str:
    """A bundle's name as the name of a folder and of a unit; different names give different ones."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:80]
    return plain if plain == name else f"{plain or 'bundle'}-{sha256_of(name.encode())[:8]}"


def folder_for(target: str) -> str:
    """Name of the folder here for what a device has reported."""
    return re.sub(r"[^A-Za-z0-9@._-]+", "-", target).strip(".-") or "device"


class Deployment:
    """What one deployment is about: the device as found, and what belongs there. See :func:`prepare_deployment`."""

    def __init__(self, connection: Connection, parcel: Parcel, wishes: Wishes, facts: Mapping[str, Any]) -> None:
        self._connection = connection
        self._parcel = parcel
        self._wishes = wishes
        self.facts = facts
        self.board: Board = board_of(facts)
        manifest = parcel.bundle.manifest
        self.environment: Environment = choose_environment(
            self.board, manifest, wishes.extras, service=wishes.service is not None
        )
        root = parcel.bundle.path
        self._sources: dict[str, Path | bytes] = {}
        self._bundle: dict[str, str] = {}
        for relative in (*manifest.files, MANIFEST_FILE):
            record = manifest.files.get(relative)
            # Everything but the manifest itself is in the manifest.
            sha256 = sha256_of((root / MANIFEST_FILE).read_bytes()) if record is None else record.sha256
            self._bundle[relative] = sha256
            self._sources[sha256] = root / relative
        wheel_name, wheel = parcel.wheel
        self._wheels = {wheel_name: sha256_of(wheel)}
        self._sources[self._wheels[wheel_name]] = wheel
        for name, path in parcel.wheelhouse.items():
            self._wheels[name] = sha256_of_file(path)
            self._sources[self._wheels[name]] = path
        self._requirements = self._pip_words(wheel_name)
        self.name = slug_of(wishes.name or manifest.name)
        self.environment_key = _key(
            self._wheels,
            self._requirements,
            self.board.python,
            self.board.python_version,
            self.environment.system_packages,
        )
        self.release = _key(self._bundle, self.environment_key)
        self._before: str | None = None
        self.reports: dict[str, Any] = {}
        self._state = self._ask("state", "looking at what is there")
        self.reports.update(self._state["reports"] if self._state["placed"] else {})

    def _pip_words(self, wheel: str) -> list[str]:
        extras = f"[{','.join(self.environment.extras)}]" if self.environment.extras else ""
        return [f"{{wheels}}/{wheel}{extras}", *self.environment.packages]

    def _request(self) -> dict[str, Any]:
        return {
            "root": self.facts["root"],
            "name": self.name,
            "release": self.release,
            "environment": self.environment_key,
            "files": {sha256: _size(source) for sha256, source in self._sources.items()},
            "bundle": self._bundle,
            "manifest": self._bundle[MANIFEST_FILE],
        }

    def _ask(self, action: str, doing: str, **more: Any) -> dict[str, Any]:
        return self._connection.ask(action, {**self._request(), **more}, doing)

    @property
    def folder(self) -> str:
        """The release's folder on the device."""
        return f"{self.facts['root']}/releases/{self.name}/{self.release}"

    @property
    def current(self) -> str:
        """What leads to the release that counts."""
        return f"{self.facts['root']}/current/{self.name}"

    def check(self) -> None:
        """Refuse what cannot end well before anything is changed.

        Raises:
            DeployError: too little space, no permission, no virtual environments, or no systemd for a service.
        """
        target, facts = self._connection.target, self.facts
        if not facts["writable"]:
            raise DeployError(f"'{target}': no permission to write at '{facts['root']}'. Choose a folder with --root.")
        new_mb = sum(_size(self._sources[sha256]) for sha256 in self._state["missing"]) / 1e6
        if not self._state["environment"]:
            new_mb += self.environment.size_mb
            if not facts["venv"]:
                raise DeployError(
                    f"'{target}': {self.board.python} cannot make virtual environments. "
                    "Install its module there (Debian, Ubuntu: sudo apt install python3-venv), or name another --python."
                )
        if new_mb > facts["free_mb"]:
            raise DeployError(
                f"'{target}' has {facts['free_mb']:,} MB free at '{facts['root']}', and about {new_mb:,.0f} MB are needed. "
                "Make room there, or choose another disk with --root."
            )
        if self._wishes.service is not None and not facts["user_units"]:
            raise DeployError(
                f"'{target}': systemd has no instance for this user, so there is nothing to run a service with. "
                f"Leave --service out, and start `{self.current}/environment/bin/edgewright serve {self.current}/bundle` yourself."
            )

    def placing(self) -> list[Step]:
        """The steps until the bundle and its environment are on the device."""
        state = self._state
        missing: list[str] = state["missing"]
        size = sum(_size(self._sources[sha256]) - state["parts"].get(sha256, 0) for sha256 in missing)
        begun = f", {len(state['parts'])} of them begun earlier" if state["parts"] else ""
        words = [word.replace("{wheels}/", "") for word in self._requirements]
        system = " --system-site-packages" if self.environment.system_packages else ""
        return [
            Step(
                "copy",
                f"sftp {len(missing)} files{begun}, {size / 1e6:.1f} MB to go, and check their SHA-256 there",
                bool(missing),
                self._copy,
            ),
            Step(
                "install",
                f"{self.board.python} -m venv{system}; pip install {' '.join(words)}",
                not state["environment"],
                partial(
                    self._ask,
                    "install",
                    "installing",
                    wheels=self._wheels,
                    requirements=self._requirements,
                    only_wheels=bool(self._parcel.wheelhouse),
                    system_packages=self.environment.system_packages,
                ),
            ),
            Step(
                "place",
                f"lay the bundle out at {self.folder}",
                not state["placed"],
                partial(self._ask, "place", "placing"),
            ),
        ]

    def _copy(self) -> None:
        found = self._ask("prepare", "making room", missing=self._state["missing"])
        missing: Sequence[str] = found["missing"]
        parts: Sequence[str] = found["parts"]
        for _ in range(_RESENT):
            if not missing:
                return
            sources = {sha256: self._sources[sha256] for sha256 in missing}
            self._connection.send(sources, parts, f"{self.facts['root']}/incoming")
            missing, parts = self._ask("receive", "checking what came", received=list(missing))["wrong"], ()
        if missing:
            raise DeployError(
                f"{len(missing)} files arrived altered at '{self._connection.target}', twice. Its disk or the network is at fault."
            )

    def proving(self) -> list[Step]:
        """The steps from there until the release counts: verify, compile, tune, bench."""
        backends = {artefact.backend for artefact in self._parcel.bundle.manifest.artefacts}
        seconds = f"{self._wishes.seconds:g}"
        commands: dict[str, list[str]] = {"verify": ["verify", "{bundle}", "--json"]}
        if self.board.tensorrt is not None and self.environment.system_packages:
            commands["compile"] = ["compile", "{bundle}", "--backend", "tensorrt", "--json"]
        elif "openvino" in backends and "openvino" in self.environment.extras:
            commands["compile"] = ["compile", "{bundle}", "--backend", "openvino", "--json"]
        if self._wishes.tune:
            commands["tune"] = ["tune", "{bundle}", "--seconds", seconds, "--json"]
        if self._wishes.bench:
            commands["bench"] = ["bench", "{bundle}", "--seconds", seconds, "--json"]
        return [
            Step(
                name,
                "edgewright " + " ".join(word.replace("{bundle}", f"{self.folder}/bundle") for word in command),
                name not in self.reports,
                partial(self.run, name, command),
            )
            for name, command in commands.items()
        ]

    @property
    def deployed(self) -> Mapping[str, str] | None:
        """Name and release under which this bundle counts there, perhaps with another environment than ours would be."""
        found: Sequence[Mapping[str, str]] = self._state["deployed"]
        return next((one for one in found if one["name"] == self.name), found[0] if found else None)

    def run(
        self, name: str, command: Sequence[str], *, there: Mapping[str, str] | None = None, keep: bool = True
    ) -> Any:
        """One of edgewright's commands there; its document.

        Args:
            name: Under which the document is kept there, and among `reports`.
            command: Its words; "{bundle}" is the bundle.
            there: Name and release; None: those that are being deployed.
            keep: Whether it is kept there, so that the step counts as done.

        Raises:
            GateError: a check there said no.
            DeployError: it failed.
        """
        words = {"step": name, "command": list(command), "keep": keep, **(there or {})}
        found = self._ask("run", f"running `edgewright {command[0]}`", **words)
        document, status = found["document"], found["status"]
        if document is not None:
            self.reports[name] = document
        if status == GateError.exit_status:
            raise GateError(
                f"`edgewright {command[0]}` said no on '{self._connection.target}' (above). What was deployed there before is as it was."
            )
        if status:
            raise DeployError(
                f"`edgewright {command[0]}` ended with status {status} on '{self._connection.target}' (above). "
                "What was deployed there before is as it was."
            )
        return document

    def switching(self) -> list[Step]:
        """The last steps: the release counts from now on, and is served."""
        switched = not self._state["current"]
        steps = [Step("switch", f"{self.current} -> {self.folder}", switched, self._switch)]
        if (service := self._wishes.service) is not None:
            unit = unit_text(service, str(self.facts["root"]), self.name)
            does = f"systemctl --user restart edgewright-{self.name}, and wait for {service.health}"
            changed = switched or self._state["unit"] != unit.strip()
            steps.append(Step("serve", does, changed, partial(self._serve, service, unit)))
        steps.append(Step("tidy", "remove releases but this and the one before it", switched, self._tidy))
        return steps

    def _switch(self) -> None:
        self._before = self._ask("switch", "switching over")["before"]

    def _tidy(self) -> None:
        self._ask("tidy", "tidying", before=self._before)

    def _serve(self, service: Service, unit: str) -> None:
        found = self._start(unit, service.health)
        if not found["ready"]:
            raise GateError(
                f"The service does not answer at {service.health} on '{self._connection.target}'. {self._go_back()} "
                f"Its words: ssh {self._connection.target} journalctl --user -u edgewright-{self.name}"
            )
        if not found["lingering"]:
            warn(
                f"'{self._connection.target}': the service ends when its user logs out, and does not start with the device. "
                "There, once: sudo loginctl enable-linger $USER"
            )

    def _start(self, unit: str, health: str) -> dict[str, Any]:
        return self._ask("serve", "starting the service", unit=unit, health=health, wait_s=_READY_WAIT_S)

    def _go_back(self) -> str:
        """To the release before this one, with the unit that it had; tells what came of it."""
        if self._before in (None, self.release):
            return "There was no other release before it."
        self._ask("switch", "switching back", release=self._before)
        older: str = self._state["unit"]
        health = health_of(older)
        if health is None:
            return "The release before it counts again; it was not served."
        ready = self._start(f"{older}\n", health)["ready"]
        return "The release before it is served again." if ready else "The release before it does not answer either."


def prepare_deployment(connection: Connection, parcel: Parcel, wishes: Wishes) -> Deployment:
    """Look at the device; changes nothing there.

    Raises:
        DeployError: it has no fitting Python, or is no machine that edgewright runs on.
    """
    connection.find_python(wishes.python)
    facts = connection.ask("probe", {"root": wishes.root}, "looking at the device")
    return Deployment(connection, parcel, wishes, facts)


def take_steps(deployment: Deployment, steps: Sequence[Step], tell: Tell) -> list[dict[str, Any]]:
    """Take the steps in order; returns what became of each: name, state ("done" or "unchanged") and seconds."""
    taken = []
    for step in steps:
        begun = monotonic()
        if step.needed:
            tell(f"{step.name}: {step.does}")
            step.act()
        taken.append(
            {
                "name": step.name,
                "state": "done" if step.needed else "unchanged",
                "seconds": round(monotonic() - begun, 3),
            }
        )
    return taken


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _key(*parts: object) -> str:
    return sha256_of(json.dumps(parts, sort_keys=True).encode())[:16]
