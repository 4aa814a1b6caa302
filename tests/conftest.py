"""Fixtures that more than one room uses."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from edgewright.export.exporter import Export
    from edgewright.train.run import Run

MadeOnce = Callable[[str, Callable[[Path], Any]], Any]


def _take_own_cores() -> None:
    """Keep a pytest-xdist worker on its share of the cores, and what it starts as well.

    Threads of several processes on the same cores wait for each other at every barrier; training then takes many times
    as long.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[int(worker.removeprefix("gw")) :: count] or cores
    os.sched_setaffinity(0, own)
    os.environ["OMP_NUM_THREADS"] = str(len(own))


_take_own_cores()
# A shell's background job ignores interrupts, and so would everything that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights that development machines have beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have the real data in '{folder}'")
        pytest.skip(f"needs the real data in '{folder}', which this machine does not have")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """`made_once("runs", make)`: what `make(folder)` returns; of all processes of the tests, the first one that asks
    makes it, the others read it."""
    # With torch, as most of what is made needs it.
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def get(name: str, make: Callable[[Path], Any]) -> Any:
        kept = root / f"{name}.pickle"
        with FileLock(root / f"{name}.lock"):
            if not kept.exists():
                folder = root / name
                folder.mkdir()
                kept.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(kept.read_bytes())  # noqa: S301 - written above

    return get


@pytest.fixture(scope="session")
def digits_run(made_once: MadeOnce) -> Run:
    """SqueezeNet from random weights to digits: the fastest to export of what torchvision has."""

    def make(folder: Path) -> Run:
        # Not needed by most tests, and torch takes seconds to import.
        from edgewright.train.config import TrainConfig
        from edgewright.train.trainer import train

        config = {"data": "digits", "backbone": "squeezenet1_1", "weights": "none", "imgsz": 48}
        return train(TrainConfig(**config, out=str(folder / "digits")))  # type: ignore[arg-type]

    run: Run = made_once("digits-run", make)
    return run


@pytest.fixture(scope="session")
def digits_export(digits_run: Run, made_once: MadeOnce) -> Export:
    """That run as a bundle with every artefact, whatever INT8 costs it."""

    def make(folder: Path) -> Export:
        from edgewright.export.config import ExportConfig
        from edgewright.export.exporter import export

        config = ExportConfig(
            run=str(digits_run.folder),
            out=folder / "bundle",
            formats=("onnx", "openvino", "tensorrt"),
            precisions=("fp32", "fp16", "bf16", "int8"),
            max_drop=100,
            calibration_images=64,
            explain=True,
        )
        return export(config)

    found: Export = made_once("digits-export", make)
    return found


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Makes a dataset on disk: `picture_folder({"train/cat": 5, "train/dog": 3})` writes 5 + 3 different small JPEGs."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "data"
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((16, 12)).save(root / folder / f"{number:02d}.jpg")
        return root

    return make


class HalfStateError(AssertionError):
    """What a fault left is neither what was there before nor what was to be there."""


class Faults:
    """What one test did to the product; counted for the table that is printed when all tests are over."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def tried(self, fault: str, place: str, times: int = 1) -> None:
        """Before it is done, so that a test which fails is counted: `faults.tried("kill -9", "export")`."""
        self._node.user_properties.append(("fault", [fault, place, times]))

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Whatever fails in this block counts as a half state; all other failures count as crashes."""
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            raise HalfStateError(f"{type(error).__name__}: {error}") from error


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Counts the faults that a test tries."""
    return Faults(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo is not None:
        # Goes with the report to the process that prints the table.
        report.user_properties.append(
            ("failed", "half state" if call.excinfo.errisinstance(HalfStateError) else "crash")
        )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of faults."""
    places: dict[str, set[str]] = {}
    times: dict[str, int] = {}
    failed: dict[tuple[str, str], int] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            tried = [value for name, value in report.user_properties if name == "fault"]
            if not tried or report.when != "call":
                continue
            for fault, place, count in tried:
                places.setdefault(fault, set()).add(place)
                times[fault] = times.get(fault, 0) + count
            for name, kind in report.user_properties:
                if name == "failed":
                    # The one that was done last.
                    failed[tried[-1][0], kind] = failed.get((tried[-1][0], kind), 0) + 1
    if not times:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line("| fault | places tried | times | crashes | half states |")
    terminalreporter.write_line("|---|---|---:|---:|---:|")
    for fault in sorted(times):
        counts = " | ".join(str(failed.get((fault, kind), 0)) for kind in ("crash", "half state"))
        terminalreporter.write_line(f"| {fault} | {', '.join(sorted(places[fault]))} | {times[fault]:,} | {counts} |")
    totals = " | ".join(
        str(sum(count for (_, each), count in failed.items() if each == kind)) for kind in ("crash", "half state")
    )
    terminalreporter.write_line(f"| all | | {sum(times.values()):,} | {totals} |")
