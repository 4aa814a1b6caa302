"""Whatever breaks while a bundle goes to a device, the older one is served there until the new one is complete."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.export.exporter import Export
from edgewright.runtime.bundle import open_bundle

from ..conftest import Faults
from ..sshd import Device, Forwarder, changed, device, free_port, states

__all__ = ["device"]

pytestmark = pytest.mark.slow

WORDS = ("--extras", "serve", "--no-tune", "--no-bench")
CUTS = 6
KILLS = 5
# Of `urlopen`, what the first caller found in the environment stays: perhaps the proxy of another test.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
GROWN = 2_000_000
"""Bytes of the file that is new in each release."""


@pytest.fixture(scope="module")
def bundle(digits_export: Export) -> Path:
    return digits_export.bundle.path


def grown(bundle: Path, folder: Path, seed: int) -> Path:
    """The bundle with a larger report, so that there is something to copy."""
    data = random.Random(seed).randbytes(GROWN)
    manifest = json.loads((bundle / "manifest.json").read_text())
    record = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    changed(bundle, folder, files={**manifest["files"], "report/more.bin": record})
    (folder / "report" / "more.bin").write_bytes(data)
    return folder


class Older:
    """What is deployed and served before anything breaks."""

    def __init__(self, device: Device, bundle: Path) -> None:
        self.device = device
        done = device.deploy(bundle, *WORDS)
        self.current, self.release = Path(done["current"]), Path(done["release"])
        self.root = self.current.parents[1]
        self.port = free_port()
        serve = [str(self.current / "environment/bin/edgewright"), "serve", str(self.current / "bundle")]
        self._server = subprocess.Popen(
            device.as_user([*serve, "--port", str(self.port)]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.picture = next((bundle / "golden").glob("*.png")).read_bytes()
        self.label = self.answer()

    def answer(self) -> str:
        """The label that the server gives, as soon as it is up."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/classify", self.picture, {"Content-Type": "image/png"}
        )
        until = time.monotonic() + 60
        while True:
            try:
                with DIRECT.open(request, timeout=30) as answer:
                    return str(json.load(answer)["predictions"][0]["label"])
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def end(self) -> None:
        self._server.terminate()
        self._server.wait()

    def assert_whole(self, *releases: Path) -> None:
        """One of these releases counts, every file of it right, and the server answers as before."""
        found = self.current.resolve()
        assert found in {release.resolve() for release in (self.release, *releases)}
        open_bundle(found / "bundle")
        assert (found / "environment" / "ready.json").is_file()
        assert self.answer() == self.label

    def assert_nobody_at_work(self) -> None:
        """What was begun on the device for a workstation that is gone has ended."""
        until = time.monotonic() + 20
        while (
            subprocess.run(
                ["pgrep", "-u", self.device.user, "-f", "edgewright-on-device"], stdout=subprocess.DEVNULL
            ).returncode
            == 0
        ):
            assert time.monotonic() < until
            time.sleep(0.1)

    def assert_tidy(self) -> None:
        """Nothing half is left, and nothing is kept that no release needs."""
        assert list((self.root / "incoming").iterdir()) == []
        assert list(self.root.rglob(".bundle.new")) == []
        used = {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.root.glob("releases/*/*/bundle/**/*")
            if path.is_file()
        }
        used |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in self.root.glob("environments/*/wheels/*")}
        assert {path.name for path in (self.root / "files").iterdir()} == used

    def back(self, bundle: Path) -> None:
        """To the older release, for the next test."""
        self.device.deploy(bundle, *WORDS)
        assert self.current.resolve() == self.release.resolve()


@pytest.fixture(scope="module")
def older(device: Device, bundle: Path) -> Iterator[Older]:
    found = Older(device, bundle)
    yield found
    found.end()


def test_line_that_is_cut(device: Device, older: Older, bundle: Path, tmp_path: Path, faults: Faults) -> None:
    faults.tried("connection cut", "deploy", CUTS)
    line = Forwarder(device.port)
    config = device.configuration("cut", line.port)
    line.reset(None)
    device.deploy(grown(bundle, tmp_path / "measure", 0), *WORDS, config=config)
    all_bytes = line.passed
    assert all_bytes > GROWN
    older.back(bundle)
    new = grown(bundle, tmp_path / "new", 1)
    passed = 0
    for number in range(CUTS):
        # The same release again and again: each attempt begins where the one before was cut.
        most = [2_000, 30_000, 400_000, 900_000, 60_000, 100_000][number]
        line.reset(most)
        done = device.edgewright("deploy", new, "device", *WORDS, config=config)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("edgewright: ")
        older.assert_nobody_at_work()
        with faults.whole():
            older.assert_whole()
        passed += min(line.passed, most)
    line.reset(None)
    done_at_last = device.deploy(new, *WORDS, config=config)
    # What came before the cuts was not sent again.
    assert line.passed < GROWN
    line.close()
    with faults.whole():
        older.assert_whole(Path(done_at_last["release"]))
        assert older.current.resolve() == Path(done_at_last["release"])
        older.assert_tidy()
    older.back(bundle)


def test_kill(device: Device, older: Older, bundle: Path, tmp_path: Path, faults: Faults) -> None:
    faults.tried("kill -9", "deploy", KILLS)
    begun = time.monotonic()
    device.deploy(grown(bundle, tmp_path / "measure", 2), *WORDS)
    takes = time.monotonic() - begun
    older.back(bundle)
    dice = random.Random(0)
    for number in range(KILLS):
        new = grown(bundle, tmp_path / f"new{number}", 10 + number)
        process = device.begin("deploy", new, "device", *WORDS)
        try:
            process.communicate(timeout=takes * dice.uniform(0.2, 0.95))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        older.assert_nobody_at_work()
        # What had come to its end is a release of its own.
        complete = [path for path in older.root.glob("releases/*/*") if (path / "report" / "verify.json").is_file()]
        with faults.whole():
            older.assert_whole(*complete)
    done = device.deploy(new, *WORDS)
    with faults.whole():
        older.assert_whole(Path(done["release"]))
        older.assert_tidy()
    older.back(bundle)


def test_disk_that_fills(device: Device, older: Older, bundle: Path, tmp_path: Path, faults: Faults) -> None:
    faults.tried("disk full", "deploy")
    new = grown(bundle, tmp_path / "new", 3)
    incoming = older.root / "incoming"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "none", str(incoming)]).returncode:
        pytest.skip("this machine does not let a disk be mounted")
    try:
        done = device.edgewright("deploy", new, "device", *WORDS)
    finally:
        subprocess.run(["umount", str(incoming)], check=True)
    assert done.returncode == 2
    assert "Files could not be copied to 'device'" in done.stderr.splitlines()[-1]
    with faults.whole():
        older.assert_whole()
    assert states(device.deploy(new, *WORDS))["copy"] == "done"
    older.back(bundle)


def test_part_that_was_spoilt(device: Device, older: Older, bundle: Path, tmp_path: Path, faults: Faults) -> None:
    faults.tried("bytes altered", "deploy")
    new = grown(bundle, tmp_path / "new", 4)
    sha256 = hashlib.sha256((new / "report" / "more.bin").read_bytes()).hexdigest()
    part = older.root / "incoming" / sha256
    part.write_bytes(bytes(GROWN // 2))
    shutil.chown(part, device.user)
    done = device.deploy(new, *WORDS)
    with faults.whole():
        older.assert_whole(Path(done["release"]))
        older.assert_tidy()
    older.back(bundle)


def test_two_at_once(device: Device, older: Older, bundle: Path, tmp_path: Path, faults: Faults) -> None:
    faults.tried("two at once", "deploy")
    new = [grown(bundle, tmp_path / f"new{number}", 5 + number) for number in range(2)]
    both = [device.begin("deploy", each, "device", *WORDS) for each in new]
    said = [process.communicate()[1] for process in both]
    assert all("Traceback" not in each for each in said)
    assert 0 in [process.returncode for process in both], said
    complete = [path for path in older.root.glob("releases/*/*") if (path / "report" / "verify.json").is_file()]
    with faults.whole():
        older.assert_whole(*complete)
    older.back(bundle)


@pytest.fixture
def service_manager(device: Device) -> Iterator[dict[str, str]]:
    """A real `systemd --user` for the device's user, as a login gives one; yields what a session knows of it."""
    systemd = Path("/lib/systemd/systemd")
    if not systemd.exists() or shutil.which("unshare") is None:
        pytest.skip("needs systemd")
    trees = map(Path, ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
    groups = [path / device.user for path in trees if (path / "cgroup.procs").exists()]
    runtime = device.home / "runtime"
    runtime.mkdir(mode=0o700)
    try:
        for group in groups:
            group.mkdir()
        owned = subprocess.run(["chown", "-R", f"{device.user}:", *map(str, groups), str(runtime)])
        assert owned.returncode == 0
    except OSError as error:
        pytest.skip(f"needs control groups of its own: {error}")
    enter = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in groups)
    # It starts only where the system was booted by systemd: here, it is told so in a view of its own.
    script = f'{enter}; mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec "$@"'
    command = device.as_user([str(systemd), "--user"], XDG_RUNTIME_DIR=str(runtime), USER=device.user)
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 15
        while not (runtime / "systemd" / "private").exists():
            if process.poll() is not None or time.monotonic() > until:
                pytest.skip("systemd does not start for a user here")
            time.sleep(0.1)
        yield {"XDG_RUNTIME_DIR": str(runtime)}
    finally:
        process.kill()
        process.wait()
        subprocess.run(["pkill", "-KILL", "-u", device.user])
        time.sleep(0.2)
        for group in groups:
            for inner in sorted(group.rglob("*"), reverse=True):
                if inner.is_dir():
                    inner.rmdir()
            group.rmdir()
        shutil.rmtree(runtime)


def test_service_is_restarted_and_an_older_release_comes_back(
    device: Device, bundle: Path, tmp_path: Path, service_manager: dict[str, str], faults: Faults
) -> None:
    faults.tried("kill -9", "the service")
    faults.tried("service that cannot start", "deploy")
    port = free_port()
    words = (*WORDS, "--service", "--port", port)

    def serving() -> int:
        """The server's process, once it answers."""
        until = time.monotonic() + 60
        while True:
            try:
                with DIRECT.open(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
                    assert answer.status == 200
                found = subprocess.run(["pgrep", "-u", device.user, "-f", f"port {port}$"], capture_output=True)
                return int(found.stdout.split()[0])
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.2)

    with device.sshd(**service_manager) as ssh_port:
        config = device.configuration("systemd", ssh_port)
        served = device.deploy(bundle, *words, config=config)
        assert states(served)["serve"] == "done"
        begun = serving()
        assert states(device.deploy(bundle, *words, config=config))["serve"] == "unchanged"
        assert serving() == begun

        os.kill(begun, signal.SIGKILL)
        time.sleep(0.5)
        assert serving() != begun

        # A release whose server cannot start: the older one is served again.
        broken = device.edgewright(
            "deploy", changed(bundle, tmp_path / "new", licence="MIT"), "device", *words[:-1], 1, config=config
        )
        assert broken.returncode == 1, broken.stderr
        assert "The release before it is served again" in broken.stderr.splitlines()[-1]
        with faults.whole():
            assert Path(served["current"]).resolve() == Path(served["release"])
            assert serving() > 0
