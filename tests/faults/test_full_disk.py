"""A full disk ends a command with one clear line; what was there before stays, and once there is room, all goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.device_cache import CACHE_VARIABLE
from edgewright.runtime.images import read_image
from edgewright.runtime.tuned import TunedChoice, device_fingerprint, keep_choice, manifest_sha256, tuned_choice
from edgewright.train.run import Run

from .conftest import Server, Start, assert_whole, refusal, temporary_files

FAULT = "full disk"
FullDisk = Callable[..., tuple[Path, subprocess.CompletedProcess[str]]]


def with_files_up_to(size: int, start: Start, strategy: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """No file of the run may be larger: Python ignores the signal, and writing raises as on a full disk."""
    pytest.importorskip("resource", reason="needs POSIX limits")
    return start(strategy, folder, file_limit=size).done()


@pytest.fixture
def on_small_disk(
    tmp_path: Path, server: Server, start: Start
) -> Callable[[str, str, Path], subprocess.CompletedProcess[str]]:
    """`run(size, strategy, copy)` trains on a disk of that size, in a mount namespace, and copies what it left there."""
    if not server.mounts:
        pytest.skip("needs Linux with user namespaces, to mount a small disk")

    def run(size: str, strategy: str, copy: Path) -> subprocess.CompletedProcess[str]:
        disk = tmp_path / "disk"
        disk.mkdir()
        return start(
            strategy,
            disk / "run",
            before=[["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]],
            after=[["cp", "-a", str(disk / "run"), str(copy)], ["umount", str(disk)]],
        ).done()

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
    tmp_path: Path, start: Start, uninterrupted: Callable[[str], bytes], size: int, file: str, faults: Any
) -> None:
    faults.tried("file that may not grow", "train")
    folder = tmp_path / "run"
    line = refusal(with_files_up_to(size, start, "full", folder), "File too large")
    assert line.endswith(f"'{folder / 'last' / file}'")
    with faults.whole():
        assert_whole(folder)
    assert [path for path in folder.rglob(".*") if path.is_file()] == []
    done = start("full", folder, "--resume").done()
    assert done.returncode == 0, done.stderr
    assert (folder / "best.safetensors").read_bytes() == uninterrupted("full")


@pytest.mark.slow
def test_activations_that_do_not_fit_are_named(tmp_path: Path, start: Start, faults: Any) -> None:
    faults.tried("file that may not grow", "train")
    folder = tmp_path / "run"
    line = refusal(with_files_up_to(100_000, start, "auto", folder), "No room for")
    assert str(folder / "cache") in line


@pytest.mark.slow
def test_full_disk_keeps_the_last_good_state(
    tmp_path: Path,
    start: Start,
    uninterrupted: Callable[[str], bytes],
    on_small_disk: Callable[[str, str, Path], subprocess.CompletedProcess[str]],
    faults: Any,
) -> None:
    faults.tried(FAULT, "train")
    # Room for the first state, but not for the next one beside it.
    folder = tmp_path / "copy"
    done = on_small_disk("45m", "full", folder)
    line = refusal(done, "No space left on device")
    assert str(tmp_path / "disk" / "run" / "last") in line
    with faults.whole():
        assert_whole(folder)
    state = torch.load(folder / "last" / "tune.pt", weights_only=True)
    assert state["progress"]["batch"] or state["progress"]["epoch"] > 1
    resumed = start("full", folder, "--resume").done()
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming in epoch" in resumed.stderr
    assert (folder / "best.safetensors").read_bytes() == uninterrupted("full")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["200k", "20m"])
def test_full_disk_is_named_wherever_it_fills(
    tmp_path: Path, on_small_disk: Callable[[str, str, Path], subprocess.CompletedProcess[str]], size: str, faults: Any
) -> None:
    faults.tried(FAULT, "train")
    line = refusal(on_small_disk(size, "auto", tmp_path / "copy"), "No space left on device", "No room for")
    assert str(tmp_path / "disk" / "run") in line
    with faults.whole():
        assert_whole(tmp_path / "copy")


@pytest.fixture
def full_disk(tmp_path: Path, server: Server, run: Start) -> FullDisk:
    """`full_disk(there, kilobytes, "tune", ...)` runs a command with a disk at `there` that begins with what is in that
    folder, and so much room beside; returns a copy of what is on it then.
    """
    if not server.mounts:
        pytest.skip("needs Linux with user namespaces, to mount a small disk")

    def begin(
        there: Path, kilobytes: int, *arguments: str | Path, **limits: Any
    ) -> tuple[Path, subprocess.CompletedProcess[str]]:
        there.mkdir(exist_ok=True)
        kept, copy = tmp_path / "kept", tmp_path / "copy"
        shutil.copytree(there, kept)
        # Whole pages of 4 kB.
        used = sum(-(-path.stat().st_size // 4096) * 4 for path in there.rglob("*") if path.is_file())
        size = f"size={used + kilobytes}k"
        before = [["mount", "-t", "tmpfs", "-o", size, "none", str(there)], ["cp", "-a", f"{kept}/.", str(there)]]
        after = [["cp", "-a", str(there), str(copy)], ["umount", str(there)]]
        done = run(*arguments, before=before, after=after, **limits).done()
        return copy, done

    return begin


@pytest.mark.slow
def test_export_names_the_bundle_and_leaves_nothing(
    tmp_path: Path, full_disk: FullDisk, digits_run: Run, faults: Any
) -> None:
    faults.tried(FAULT, "export")
    disk = tmp_path / "disk"
    options = ("--formats", "onnx", "--precisions", "fp32", "--golden", "1")
    # The ONNX file has 3 MB.
    copy, done = full_disk(disk, 1000, "export", digits_run.folder, "--out", disk / "digits", *options)
    assert refusal(done, "No space left on device").endswith(f"'{disk / 'digits'}'")
    with faults.whole():
        assert list(copy.iterdir()) == []


def test_compile_says_it_and_leaves_nothing(
    tmp_path: Path, small_bundle: Path, full_disk: FullDisk, run: Start, faults: Any
) -> None:
    faults.tried(FAULT, "compile")
    disk = tmp_path / "disk"
    command = ("compile", small_bundle, "--backend", "openvino")
    copy, done = full_disk(disk, 12, *command, environment={CACHE_VARIABLE: str(disk)})
    refusal(done, "there was no room", "No space left on device")
    with faults.whole():
        assert [path for path in copy.rglob("*") if path.is_file()] == []
    again = run(*command, environment={CACHE_VARIABLE: str(copy)}).done()
    assert again.returncode == 0, again.stderr


def test_tune_keeps_what_was_chosen_before(
    tmp_path: Path, small_bundle: Path, full_disk: FullDisk, faults: Any
) -> None:
    faults.tried(FAULT, "tune")
    disk = tmp_path / "disk"
    command = ("tune", small_bundle, "--seconds", "0.5", "--threads", "1", "--max-drop", "100")
    manifest = open_bundle(small_bundle).manifest
    chosen = TunedChoice(
        bundle=manifest.name,
        manifest_sha256=manifest_sha256(manifest),
        fingerprint=device_fingerprint(),
        artefact="model.fp32",
        threads=2,
        p50_ms=0.5,
        tuned_at="2026-01-01T00:00:00+00:00",
    )
    keep_choice(chosen, manifest, disk)
    copy, done = full_disk(disk, 0, *command, environment={CACHE_VARIABLE: str(disk)})
    assert str(disk / "tuned") in refusal(done, "No space left on device")
    with faults.whole():
        assert tuned_choice(manifest, copy) == chosen
        assert temporary_files(copy) == []


def test_bench_names_the_report_and_leaves_no_half(
    tmp_path: Path, small_bundle: Path, full_disk: FullDisk, faults: Any
) -> None:
    faults.tried(FAULT, "bench --report")
    disk = tmp_path / "disk"
    command = ("bench", small_bundle, "--seconds", "0.1", "--threads", "1", "--batch", "1", "--report", disk)
    # Room for a picture or two.
    copy, done = full_disk(disk, 40, *command)
    assert str(disk) in refusal(done, "No space left on device")
    with faults.whole():
        assert not (copy / "bench.json").exists()
        assert temporary_files(copy) == []
        for picture in copy.glob("*.png"):
            read_image(picture)


def test_predict_names_its_file_and_goes_on_with_room(
    tmp_path: Path, small_bundle: Path, full_disk: FullDisk, run: Start, faults: Any
) -> None:
    faults.tried(FAULT, "predict --out")
    disk, pictures = tmp_path / "disk", tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        shutil.copyfile(small_bundle / "golden" / "000.png", pictures / f"{number:03d}.png")
    command = ("predict", small_bundle, pictures, "--artefact", "model.fp32", "--out")
    copy, done = full_disk(disk, 8, *command, disk / "labels.jsonl")
    assert str(disk / "labels.jsonl") in refusal(done, "No space left on device")
    resumed = run(*command, copy / "labels.jsonl", "--resume").done()
    assert resumed.returncode == 0, resumed.stderr
    with faults.whole():
        lines = [json.loads(line) for line in (copy / "labels.jsonl").read_text().splitlines()]
        assert [Path(line["file"]).name for line in lines] == [f"{number:03d}.png" for number in range(60)]
        assert {line["label"] for line in lines} == {"red"}
