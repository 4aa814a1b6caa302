"""A full disk ends training with one clear line, and what was saved before goes on once there is room."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import ENVIRONMENT, assert_whole, command, resume

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["edgewright", *sys.argv[2:]]
runpy.run_module("edgewright", run_name="__main__")
"""


def refusal(done: subprocess.CompletedProcess[str], *reasons: str) -> str:
    """The one line of a command that the system refused its file."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgewright: ")]
    assert len(lines) == 1, done.stderr
    assert any(reason in lines[0] for reason in reasons), lines[0]
    return lines[0]


def with_files_up_to(size: int, strategy: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """No file of the run may be larger: Python ignores the signal, and writing raises as on a full disk."""
    pytest.importorskip("resource", reason="needs POSIX limits")
    arguments = command(strategy, folder, *more)
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), *arguments[3:]],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=240,
    )


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Callable[[str, str, Path], subprocess.CompletedProcess[str]]:
    """`run(size, strategy, copy)` trains on a disk of that size, in a mount namespace, and copies what it left there."""
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode
    ):
        pytest.skip("needs Linux with user namespaces, to mount a small disk")

    def run(size: str, strategy: str, copy: Path) -> subprocess.CompletedProcess[str]:
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        script = (
            f"mount -t tmpfs -o size={size} none {shlex.quote(str(disk))} && "
            f"{{ {shlex.join(command(strategy, disk / 'run'))}; status=$?; "
            f"cp -a {shlex.quote(str(disk / 'run'))} {shlex.quote(str(copy))}; exit $status; }}"
        )
        return subprocess.run(
            [unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=240
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "file"),
    [
        # The weights are 6.2 MB, what is needed to go on with them three times that.
        (2_000_000, "start.safetensors"),
        (9_000_000, "tune.pt"),
    ],
)
def test_file_that_does_not_fit_is_named_and_training_goes_on_with_room(
    tmp_path: Path, uninterrupted: Callable[[str], bytes], size: int, file: str
) -> None:
    folder = tmp_path / "run"
    line = refusal(with_files_up_to(size, "full", folder), "File too large")
    assert line.endswith(f"'{folder / 'last' / file}'")
    assert_whole(folder)
    assert [path for path in folder.rglob(".*") if path.is_file()] == []
    done = resume("full", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "best.safetensors").read_bytes() == uninterrupted("full")


@pytest.mark.slow
def test_activations_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = refusal(with_files_up_to(100_000, "auto", folder), "No room for")
    assert str(folder / "cache") in line


@pytest.mark.slow
def test_full_disk_keeps_the_last_good_state(
    tmp_path: Path,
    uninterrupted: Callable[[str], bytes],
    on_small_disk: Callable[[str, str, Path], subprocess.CompletedProcess[str]],
) -> None:
    # Room for the first state, but not for the next one beside it.
    folder = tmp_path / "copy"
    done = on_small_disk("45m", "full", folder)
    line = refusal(done, "No space left on device")
    assert str(tmp_path / "disk" / "run" / "last") in line
    assert_whole(folder)
    state = torch.load(folder / "last" / "tune.pt", weights_only=True)
    assert state["progress"]["batch"] or state["progress"]["epoch"] > 1
    resumed = resume("full", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming in epoch" in resumed.stderr
    assert (folder / "best.safetensors").read_bytes() == uninterrupted("full")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["200k", "8m", "20m"])
def test_full_disk_is_named_wherever_it_fills(
    tmp_path: Path, on_small_disk: Callable[[str, str, Path], subprocess.CompletedProcess[str]], size: str
) -> None:
    line = refusal(on_small_disk(size, "auto", tmp_path / "copy"), "No space left on device", "No room for")
    assert str(tmp_path / "disk" / "run") in line
    assert_whole(tmp_path / "copy")
