"""A bundle to a device and back: `edgewright deploy` and `bench --on`, over a real sshd, to a user who has nothing yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.benchmarks.document import read_document
from edgewright.export.exporter import Export
from edgewright.runtime.deploy.wheel import build_wheel

from ..sshd import Device, changed, device, free_port, states, tree

__all__ = ["device"]

pytestmark = pytest.mark.slow

# As little as it takes.
QUICK = ("--extras", "none", "--seconds", "0.5")


@pytest.fixture(scope="module")
def bundle(digits_export: Export) -> Path:
    return digits_export.bundle.path


@pytest.fixture(scope="module")
def first(device: Device, bundle: Path) -> dict[str, Any]:
    return device.deploy(bundle, *QUICK, "--report", device.folder / "report")


def test_everything_is_done_once(device: Device, first: dict[str, Any]) -> None:
    assert set(states(first).values()) == {"done"}
    assert list(states(first)) == ["copy", "install", "place", "verify", "tune", "bench", "switch", "tidy"]
    assert first["verify"]["passed"]
    assert first["device"]["machine"] == os.uname().machine


def test_bundle_answers_there_without_what_is_here(device: Device, first: dict[str, Any]) -> None:
    picture = next(Path(first["current"], "bundle", "golden").glob("*.png"))
    there = f"{first['current']}/environment/bin/edgewright"
    done = subprocess.run(
        device.as_user([there, "predict", f"{first['current']}/bundle", str(picture), "--json"]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"].isdecimal()
    packages = json.loads(Path(first["current"], "environment", "ready.json").read_text())["packages"]
    assert "onnxruntime" in packages
    assert not {"torch", "onnx", "openvino", "matplotlib"} & set(packages)


def test_reports_come_back(device: Device, first: dict[str, Any]) -> None:
    measured = read_document(device.folder / "report" / "bench.json")
    assert measured.as_json() == first["bench"]
    assert json.loads((device.folder / "report" / "tune.json").read_text()) == first["tune"]
    assert first["tune"]["chosen"]["artefact"] in {report.artefact for report in measured.reports}


def test_second_time_nothing_is_done(device: Device, first: dict[str, Any], bundle: Path) -> None:
    root = Path(first["current"]).parents[1]
    before = tree(root)
    again = device.deploy(bundle, *QUICK)
    assert set(states(again).values()) == {"unchanged"}
    assert tree(root) == before
    assert again["bench"] == first["bench"]


def test_only_what_changed_is_copied_and_the_release_before_is_kept(
    device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    done = device.deploy(changed(bundle, tmp_path / "new", licence="MIT"), *QUICK, "--no-bench")
    assert states(done)["install"] == "unchanged"
    assert states(done)["verify"] == "done"
    assert "copy: sftp 1 files, 0.0 MB to go" in done["said"]
    assert done["release"] != first["release"]
    assert Path(first["release"]).is_dir()
    # And back: nothing has to be copied or proved again.
    back = device.deploy(bundle, *QUICK)
    assert {name for name, state in states(back).items() if state == "done"} == {"switch", "tidy"}
    assert Path(back["current"]).resolve() == Path(first["release"])


def test_dry_run_changes_nothing(device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    root = Path(first["current"]).parents[1]
    before = tree(device.home)
    done = device.deploy(changed(bundle, tmp_path / "new", licence="ISC"), *QUICK, "--dry-run")
    assert {step["name"] for step in done["steps"] if step["needed"]} == {
        *("copy", "place", "verify", "tune", "bench", "switch", "tidy")
    }
    assert "edgewright verify" in done["said"]
    assert tree(device.home) == before
    assert str(root) in done["said"]


def test_dry_run_to_an_empty_device_changes_nothing(device: Device, bundle: Path) -> None:
    elsewhere = device.home / "else where"
    done = device.deploy(bundle, *QUICK, "--dry-run", "--root", elsewhere)
    assert all(step["needed"] for step in done["steps"])
    assert not elsewhere.exists()


def test_bundle_that_fails_verification_there_does_not_count(
    device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    golden = json.loads((bundle / "manifest.json").read_text())["golden"]
    golden[0]["logits"] = golden[0]["logits"][1:] + golden[0]["logits"][:1]
    before = Path(first["current"]).resolve()
    done = device.edgewright("deploy", changed(bundle, tmp_path / "wrong", golden=golden), "device", *QUICK)
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert "What was deployed there before is as it was" in done.stderr.splitlines()[-1]
    assert Path(first["current"]).resolve() == before


def test_what_was_altered_there_is_noticed_and_mended(device: Device, first: dict[str, Any], bundle: Path) -> None:
    file = Path(first["release"], "bundle", "labels.txt")
    right = file.read_text()
    file.chmod(0o644)
    file.write_text("all\nwrong\n")
    done = device.deploy(bundle, *QUICK, "--no-bench")
    assert {"copy", "place", "verify"} <= {name for name, state in states(done).items() if state == "done"}
    assert Path(done["release"], "bundle", "labels.txt").read_text() == right


def test_device_without_an_index(device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    environment = Path(first["current"], "environment")
    packages = json.loads((environment / "ready.json").read_text())["packages"]
    wanted = [
        f"{name}=={version}" for name, version in packages.items() if name not in ("edgewright", "pip", "setuptools")
    ]
    wheels, own = tmp_path / "wheels", tmp_path / "own"
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    fetched = subprocess.run(
        [*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), *wanted],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert fetched.returncode == 0, fetched.stderr
    name, content = build_wheel()
    own.mkdir()
    (own / name).write_bytes(content)
    words = ("--extras", "none", "--no-tune", "--no-bench", "--root", device.home / "offline", "--wheel", own / name)
    # Nobody listens there.
    nowhere = {"PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    with device.sshd(**nowhere) as port:
        config = device.configuration("offline", port)
        refused = device.edgewright("deploy", bundle, "device", *words, config=config)
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr
        assert "--wheelhouse" in refused.stderr.splitlines()[-1]
        done = device.deploy(bundle, *words, "--wheelhouse", wheels, config=config)
    assert done["verify"]["passed"]
    there = json.loads(Path(done["current"], "environment", "ready.json").read_text())["packages"]
    assert {name: version for name, version in there.items() if name in packages} == packages


def test_measured_from_afar(device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    words = ("--threads", "1", "--batch", "1", "--artefact", "model.fp32", "--seconds", "0.5")
    done = device.edgewright(
        "bench", bundle, *words, "--on", "device", "--on", "twin", "--on", "-oProxyCommand=true", "--json",
        *("--report", tmp_path / "report"),
    )  # fmt: skip
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert [each["target"] for each in document["devices"]] == ["device", "twin"]
    assert [len(each["reports"]) for each in document["devices"]] == [1, 1]
    assert list(document["failed"]) == ["-oProxyCommand=true"]
    assert "p50 ms with the best number of threads" in done.stderr
    assert (tmp_path / "report" / "twin" / "report.html").is_file()
    assert read_document(tmp_path / "report" / "device" / "bench.json").bundle_sha256 == first["bench"]["bundle_sha256"]
    # Measuring is not deploying.
    assert Path(first["current"]).resolve() == Path(first["release"]).resolve()


def test_measured_where_it_is_not_deployed(device: Device, first: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    artefacts = json.loads((bundle / "manifest.json").read_text())["artefacts"]
    # Without OpenVINO's, so that the environment that is there fits.
    kept = [artefact for artefact in artefacts if artefact["backend"] == "onnxruntime"]
    other = changed(bundle, tmp_path / "other", artefacts=kept, recommended="model.fp32")
    words = ("--threads", "1", "--batch", "1", "--artefact", "model.fp32", "--seconds", "0.5")
    done = device.edgewright("bench", other, *words, "--on", "device", "--json")
    assert done.returncode == 0, done.stderr
    assert "copy: sftp 1 files" in done.stderr
    assert Path(first["current"]).resolve() == Path(first["release"]).resolve()


class TestRefusals:
    """One message, status 2, nothing changed."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, device: Device) -> Iterator[None]:
        before = tree(device.home)
        yield
        assert tree(device.home) == before

    def refusal(self, device: Device, bundle: Path, *words: object, config: Path | None = None) -> str:
        done = device.edgewright("deploy", bundle, "device", *words, config=config)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        lines = done.stderr.splitlines()
        assert [line for line in lines if line.startswith("edgewright: ")] == lines[-1:]
        return lines[-1]

    def test_other_host_key(self, device: Device, bundle: Path) -> None:
        device.known(device.folder / "others", "other")
        config = device.configuration("other-key", device.port, known="others")
        assert "Host key verification failed" in self.refusal(device, bundle, config=config)

    def test_key_that_is_not_known_there(self, device: Device, bundle: Path) -> None:
        config = device.configuration("other-id", device.port, identity="other")
        assert "Permission denied" in self.refusal(device, bundle, config=config)

    def test_nobody_listens(self, device: Device, bundle: Path) -> None:
        config = device.configuration("nobody", free_port())
        assert "Connection refused" in self.refusal(device, bundle, config=config)

    def test_no_python(self, device: Device, bundle: Path, tmp_path: Path) -> None:
        with device.sshd(PATH=str(self.programs(device))) as port:
            said = self.refusal(device, bundle, config=device.configuration("no-python", port))
        assert "has no Python. Expected Python 3.10 or newer" in said

    def test_python_that_is_too_old(self, device: Device, bundle: Path) -> None:
        folder = self.programs(device)
        old = folder / "python3"
        old.write_text(f"#!/bin/sh\necho python 3 8 10 {old}\n")
        old.chmod(0o755)
        with device.sshd(PATH=str(folder)) as port:
            said = self.refusal(device, bundle, config=device.configuration("old-python", port))
        assert "python3 (3.8.10). Expected Python 3.10 or newer" in said

    def programs(self, device: Device) -> Path:
        """A folder with a shell and nothing else."""
        folder = Path(tempfile.gettempdir(), f"{device.user}-bin")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "sh").symlink_to("/bin/sh")
        return folder

    def test_no_permission(self, device: Device, bundle: Path) -> None:
        assert "no permission to write at '/root-only'" in self.refusal(device, bundle, "--root", "/root-only")

    def test_no_systemd(self, device: Device, bundle: Path) -> None:
        if Path("/run/systemd/system").exists():
            pytest.skip("this machine has systemd")
        said = self.refusal(device, bundle, "--service")
        assert "systemd has no instance for this user" in said
        assert "serve" in said

    def test_disk_that_is_too_small(self, device: Device, bundle: Path) -> None:
        small = Path(tempfile.mkdtemp(prefix="edgewright-small-"))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=777", "none", str(small)])
        if mounted.returncode:
            pytest.skip("this machine does not let a disk be mounted")
        try:
            with device.sshd() as port:
                said = self.refusal(device, bundle, "--root", small, config=device.configuration("small", port))
        finally:
            subprocess.run(["umount", str(small)], check=True)
            small.rmdir()
        assert "3 MB free" in said

    def test_target_that_is_an_option(self, device: Device, bundle: Path) -> None:
        done = device.edgewright("deploy", bundle, "--", "-oProxyCommand=touch /tmp/x")
        assert done.returncode == 2
