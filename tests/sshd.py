"""A device for the tests: a user of this machine who has nothing yet, reached through a real sshd on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NEEDED = ("ssh", "sftp", "ssh-keygen", "useradd", "userdel", "setpriv")
LONGEST_S = 300.0
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("SSH_AUTH_SOCK", "DISPLAY")}


def why_no_device() -> str | None:
    """What is missing here, if anything."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root, to make a user"
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if SSHD is None or missing:
        return f"needs {', '.join([*missing, *([] if SSHD else ['sshd'])])}"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Device:
    """The user, keys for it, and one sshd for as long as the tests run."""

    def __init__(self, folder: Path) -> None:
        # Not below pytest's folder, which only its owner may enter.
        self.home = Path(tempfile.mkdtemp(prefix="edgewright-device-"))
        self.user = f"ew{self.home.name[-8:].lower().replace('_', 'x')}"
        self.folder = folder
        # A password that nobody knows: an account that is locked may not log in with a key either.
        run("useradd", "--no-create-home", "--home-dir", str(self.home), "--password", "*", self.user)
        for name in ("host", "id", "other"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        ssh = self.home / ".ssh"
        ssh.mkdir()
        shutil.copy(folder / "id.pub", ssh / "authorized_keys")
        run("chown", "-R", f"{self.user}:", str(self.home))
        self.home.chmod(0o755)
        self.known(folder / "known_hosts", "host")
        self._stack = contextlib.ExitStack()
        self.port = self._stack.enter_context(self.sshd())
        self.config = self.configuration("usual", self.port)

    def known(self, path: Path, key: str) -> None:
        words = (self.folder / f"{key}.pub").read_text().split()[:2]
        path.write_text(f"device {' '.join(words)}\n")

    def configuration(self, name: str, port: int, known: str = "known_hosts", identity: str = "id") -> Path:
        """What stands in `~/.ssh/config` elsewhere: `device` and `twin` are the same."""
        path = self.folder / f"{name}.config"
        path.write_text(
            f"Host device twin\n  HostName 127.0.0.1\n  Port {port}\n  User {self.user}\n  HostKeyAlias device\n"
            f"  IdentityFile {self.folder / identity}\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
            f"  UserKnownHostsFile {self.folder / known}\n"
        )
        return path

    @contextlib.contextmanager
    def sshd(self, **environment: str) -> Iterator[int]:
        """A server with these variables in its sessions; yields its port."""
        port = free_port()
        # What pip is told of its index here, it is told there as well.
        passed = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_CERT"))}
        variables = " ".join(f'"{key}={value}"' for key, value in {**passed, **environment}.items())
        config = self.folder / f"sshd-{port}"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\nPidFile none\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nSubsystem sftp internal-sftp\n"
            + (f"SetEnv {variables}\n" if variables else "")
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / f"sshd-{port}.log").open("w") as log:
            process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        try:
            until = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()

    def command(self, name: str, *words: object, config: Path | None = None) -> list[str]:
        # The same interpreter as here, and nobody's terminal.
        own = [sys.executable, "-W", "ignore", "-m", "edgewright", name, *map(str, words)]
        return [*own, "--ssh-config", str(config or self.config)]

    def edgewright(self, name: str, *words: object, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of ours that goes to the device."""
        return subprocess.run(
            self.command(name, *words, config=config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            env=ENVIRONMENT,
            cwd=self.folder,
        )

    def begin(self, name: str, *words: object) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(
            self.command(name, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=self.folder,
        )

    def deploy(self, bundle: Path, *words: object, config: Path | None = None) -> dict[str, Any]:
        """`edgewright deploy`, which must succeed; its document, and under "said" what it told."""
        done = self.edgewright("deploy", bundle, "device", *words, "--json", config=config)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return {**document, "said": done.stderr}

    def as_user(self, words: Sequence[str], **options: Any) -> list[str]:
        """The command line that runs a program as that user."""
        who = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        environment = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", **options}
        return [*who, "env", "-i", *(f"{key}={value}" for key, value in environment.items()), *words]

    def close(self) -> None:
        self._stack.close()
        # Whatever still runs for that user.
        subprocess.run(["pkill", "-KILL", "-u", self.user], check=False)
        until = time.monotonic() + 10
        while subprocess.run(["pgrep", "-u", self.user], capture_output=True).returncode == 0:
            assert time.monotonic() < until
            time.sleep(0.05)
        run("userdel", self.user)
        # Fifteen thousand files: nobody has to wait.
        run("sh", "-c", f"rm -rf '{self.home}' > /dev/null 2>&1 &")


class Forwarder:
    """Passes on what goes to the device, up to so many bytes; then the line is dead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        self.most: int | None = None
        self._lines: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self, most: int | None) -> None:
        """From now on so many bytes."""
        self.passed, self.most = 0, most

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._lines += [near, far]
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                if counted:
                    self.passed += len(data)
                    if self.most is not None and self.passed > self.most:
                        break
                sink.sendall(data)
        for line in (source, sink):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A fresh user behind a real sshd."""
    if (why := why_no_device()) is not None:
        pytest.skip(why)
    found = Device(tmp_path_factory.mktemp("ssh"))
    yield found
    found.close()


def changed(bundle: Path, folder: Path, **values: Any) -> Path:
    """The bundle with other values in its manifest, which has a checksum of everything but itself."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))
    return folder


def states(document: dict[str, Any]) -> dict[str, str]:
    """What became of each step of a deployment."""
    return {step["name"]: step["state"] for step in document["steps"]}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below, with what shows a change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }
