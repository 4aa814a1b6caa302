"""A connection to a device by the system's OpenSSH: its keys, its `~/.ssh/config`, its known hosts, and its words when it fails."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from time import monotonic
from typing import IO, Any

from typing_extensions import Self

from edgewright.runtime.errors import DeployError, UsageError

__all__ = ["Connection", "SshOptions"]

_READY = "edgewright-is-connected"
_BROKEN = 255
"""The status of `ssh` itself, as against that of what it ran."""
_CONNECT_S = 30
# A line that is dead is noticed; a command that the configuration has for people who log in is not ours.
_ALWAYS = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", "-o", "RemoteCommand=none")

# `python3` first: on a Jetson, the system's TensorRT belongs to it. Prints every interpreter there is.
_FIND_PYTHON = """
for name in {names}; do
  path=$(command -v "$name") || continue
  "$path" -c 'import sys; print("python", *sys.version_info[:3], sys.executable)'
done
exit 0
"""
# Modules come as text, each after those that it imports; the last one begins.
_SENT = (
    "edgewright.runtime.errors",
    "edgewright.runtime.files",
    *(
        f"edgewright.runtime.deploy.on_device.{name}"
        for name in ("places", "programs", "machine", "service", "store", "environment", "main")
    ),
)
_BEGIN = """
import json, sys, types
sent = json.loads(sys.stdin.buffer.read(int(sys.argv[2])))
for name, text in sent["modules"]:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main(sent["request"])
"""
_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10")
_OLDEST = (3, 10)


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to reach the device, beyond what `~/.ssh/config` says.

    Attributes:
        port: If not that of the configuration.
        identity: File of a private key.
        config: A file instead of `~/.ssh/config`.
    """

    port: int | None = None
    identity: Path | None = None
    config: Path | None = None

    def arguments(self) -> list[str]:
        """For ssh and sftp alike."""
        words = [] if self.config is None else ["-F", str(self.config)]
        if self.port is not None:
            words += ["-o", f"Port={self.port}"]
        if self.identity is not None:
            words += ["-o", f"IdentityFile={self.identity}"]
        return words


@dataclass(slots=True)
class Connection:
    """One login that all steps share; a context manager. When this process dies, what it began on the device dies too.

    Attributes:
        target: `user@host`, a name of `~/.ssh/config`, or `ssh://user@host:port`.
        options: How to reach it.
        batch: Ask nothing: a missing key is an error, not a question for a password.
    """

    target: str
    options: SshOptions = field(default_factory=SshOptions)
    batch: bool = False
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _master: subprocess.Popen[bytes] | None = None
    _python: str = "python3"

    def __enter__(self) -> Self:
        if self.target.startswith("-") or not self.target.strip():
            raise UsageError(f"'{self.target}' is no device. Expected user@host, or a name of your ~/.ssh/config.")
        for program in ("ssh", "sftp"):
            if shutil.which(program) is None:
                raise DeployError(f"'{program}' is not installed here. Install OpenSSH's client.")
        # Not below TMPDIR: the path of a socket may have about a hundred characters.
        self._folder = tempfile.TemporaryDirectory(prefix="ew-", dir="/tmp" if Path("/tmp").is_dir() else None)  # noqa: S108
        try:
            self._connect(Path(self._folder.name))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out."""
        if self._master is not None:
            assert self._master.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._master.stdin.close()
            try:
                self._master.wait(5)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
            assert self._master.stdout is not None
            self._master.stdout.close()
            self._master = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _connect(self, folder: Path) -> None:
        """Log in once. The login lives as long as its standard input is open: as long as this process."""
        batch = ["-o", "BatchMode=yes"] if self.batch else []
        command = ["ssh", *self.options.arguments(), *batch, *_ALWAYS, "-o", f"ConnectTimeout={_CONNECT_S}", "-T"]
        command += ["-M", "-S", str(folder / "s"), "-o", "ControlPersist=no", "--", self.target]
        said = folder / "said"
        with said.open("wb") as stderr:
            self._master = subprocess.Popen(
                [*command, f"exec sh -c 'echo {_READY}; read line'"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self._master.stdout is not None
        # What a shell's start-up files print comes before it.
        for line in self._master.stdout:
            if line.strip() == _READY.encode():
                return
        self._master.wait()
        words = " ".join(said.read_text(errors="replace").split())
        raise DeployError(
            f"No connection to '{self.target}': {words or 'ssh said nothing'} "
            f"Expected that `ssh {self.target}` works without questions; nothing was changed there."
        )

    def _shared(self) -> list[str]:
        assert self._folder is not None
        # Never a login of its own: with the shared one gone all is over, and `false` makes that fail at once.
        alone = ("ControlMaster=no", f"ControlPath={self._folder.name}/s", "ProxyCommand=false")
        options = [word for option in alone for word in ("-o", option)]
        return [*self.options.arguments(), *_ALWAYS, *options, "-q"]

    def _ssh(self, command: str) -> list[str]:
        return ["ssh", *self._shared(), "-T", "--", self.target, command]

    def _lost(self, doing: str) -> DeployError:
        return DeployError(
            f"The connection to '{self.target}' broke while {doing}. What was deployed there before is as it was. "
            "Run the same command again: it goes on where it stopped."
        )

    def find_python(self, wanted: str | None = None) -> str:
        """The interpreter that will run edgewright there: `wanted`, or the first that is new enough.

        Raises:
            DeployError: none, or only older ones; says which.
        """
        names = shlex.quote(wanted) if wanted else " ".join(_PYTHONS)
        script = _FIND_PYTHON.format(names=names)
        done = subprocess.run(self._ssh("sh"), input=script.encode(), capture_output=True)
        if done.returncode == _BROKEN:
            raise self._lost("looking for Python")
        found: dict[str, tuple[int, ...]] = {}
        for line in done.stdout.decode(errors="replace").splitlines():
            words = line.split(" ", 4)
            if words[0] == "python" and len(words) == 5 and all(word.isdecimal() for word in words[1:4]):
                found[words[4]] = tuple(int(word) for word in words[1:4])
        for path, version in found.items():
            if version[:2] >= _OLDEST:
                self._python = path
                return path
        told = ", ".join(f"{path} ({'.'.join(map(str, version))})" for path, version in found.items())
        what = f"no '{wanted}'" if wanted else "no Python"
        raise DeployError(
            f"'{self.target}' has {f'only {told}' if told else what}. Expected Python 3.10 or newer: "
            "install it there (Debian, Ubuntu: sudo apt install python3 python3-venv), or name one with --python."
        )

    def ask(self, action: str, request: Mapping[str, Any], doing: str) -> dict[str, Any]:
        """Have :mod:`~edgewright.runtime.deploy.on_device` do `action` there; its progress goes to our stderr.

        Raises:
            DeployError: it cannot be done, or the connection broke.
        """
        sent = json.dumps({"modules": _modules(), "request": {"action": action, **request}}).encode()
        # What follows it on stdin is nothing, and the end of that means that we are gone.
        words = (self._python, "-c", _BEGIN, "edgewright-on-device", str(len(sent)))
        with subprocess.Popen(
            self._ssh(shlex.join(words)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            last: list[str] = []
            echo = threading.Thread(target=_echo, args=(process.stderr, last), daemon=True)
            echo.start()
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(sent)
                printed = process.stdout.read()
                process.wait()
            except BaseException:
                # Interrupted: the end of its input tells the device to stop.
                process.kill()
                raise
            echo.join()
        if process.returncode == _BROKEN:
            raise self._lost(doing)
        try:
            answer = json.loads(printed)
        except ValueError:
            raise DeployError(
                f"'{self.target}' gave no answer while {doing} (status {process.returncode}): "
                f"{' '.join(last[-3:]) or 'it said nothing'}"
            ) from None
        if "refused" in answer:
            raise DeployError(f"'{self.target}', while {doing}: {answer['refused']}")
        result: dict[str, Any] = answer["answer"]
        return result

    def send(self, files: Mapping[str, Path | bytes], parts: Sequence[str], folder: str) -> None:
        """Copy files by sftp to `folder` there, under their new names; those of which a part is there are continued.

        Raises:
            DeployError: the connection broke or a file could not be written.
        """
        with tempfile.TemporaryDirectory(prefix="edgewright-send-") as staging:
            # Names without blanks or stars, whatever the files are called: sftp has a language of its own.
            for name, source in files.items():
                if isinstance(source, bytes):
                    Path(staging, name).write_bytes(source)
                else:
                    Path(staging, name).symlink_to(source.resolve())
            batch = [f"cd {_quoted(folder)}"]
            batch += [f"{'reput' if name in parts else 'put'} {name} {name}" for name in files]
            done = subprocess.run(
                ["sftp", *self._shared(), "-b", "-", self.target],
                input="\n".join([*batch, ""]).encode(),
                capture_output=True,
                cwd=staging,
            )
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())
            if self._master is None or self._gone():
                raise self._lost("copying files")
            raise DeployError(
                f"Files could not be copied to '{self.target}': {said or f'sftp ended with {done.returncode}'}. "
                "Run the same command again: it goes on where it stopped."
            )

    def _gone(self) -> bool:
        """Whether the shared login has ended; it takes a moment to notice."""
        assert self._master is not None
        until = monotonic() + 2
        while monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._master.wait(0.2)
                return True
        return False


def _modules() -> list[tuple[str, str]]:
    found = []
    for name in _SENT:
        package, _, module = name.rpartition(".")
        found.append((name, resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")))
    return found


def _echo(stream: IO[bytes], last: list[str]) -> None:
    """Show what is said there, and keep its last lines."""
    with stream:
        for raw in stream:
            line = raw.decode(errors="replace")
            # What a command there proposes to type next would be typed here.
            if line.startswith("next: "):
                continue
            print(line, end="", file=sys.stderr, flush=True)
            if line.strip():
                last.append(line.strip())


def _quoted(path: str) -> str:
    """For sftp's batch language."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
