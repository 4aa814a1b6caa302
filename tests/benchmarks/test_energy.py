"""Meters of energy on trees of files that stand for machines, whose counters run and wrap, and on an NVML that is not there."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgewright.benchmarks import energy
from edgewright.benchmarks.energy import open_energy_meter, why_no_energy

from .machine_files import machine

POWERCAP = "sys/class/powercap"
INA = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"


def zone(name: str, kind: str, microjoules: int, most: int = 262143328850) -> dict[str, str]:
    folder = f"{POWERCAP}/{name}"
    return {
        f"{folder}/name": f"{kind}\n",
        f"{folder}/energy_uj": f"{microjoules}\n",
        f"{folder}/max_energy_range_uj": f"{most}\n",
    }


def rail(channel: int, name: str, millivolts: int, milliamperes: int) -> dict[str, str]:
    return {
        f"{INA}/in{channel}_label": f"{name}\n",
        f"{INA}/in{channel}_input": f"{millivolts}\n",
        f"{INA}/curr{channel}_input": f"{milliamperes}\n",
    }


@pytest.fixture(autouse=True)
def _without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may have a card."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def energy_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgewright-energy"]


def test_packages_are_summed_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    """A package's parts, the platform around it and the second way to read it are all beside it."""
    files = (
        zone("intel-rapl:0", "package-0", 1_000_000)
        | zone("intel-rapl:0:0", "core", 500_000)
        | zone("intel-rapl:1", "package-1", 7_000_000)
        | zone("intel-rapl:2", "psys", 9_000_000)
        | zone("intel-rapl-mmio:0", "package-0", 1_000_000)
    )
    root = machine(tmp_path, files)
    meter = open_energy_meter(root)
    assert meter is not None
    with meter:
        assert meter.source == "RAPL package-0 + package-1"
        assert meter.joules() == 0
        machine(
            root,
            zone("intel-rapl:0", "package-0", 3_500_000)
            | zone("intel-rapl:0:0", "core", 90_000_000)
            | zone("intel-rapl:1", "package-1", 8_000_000)
            | zone("intel-rapl:2", "psys", 90_000_000)
            | zone("intel-rapl-mmio:0", "package-0", 90_000_000),
        )
        assert meter.joules() == pytest.approx(3.5)
        assert meter.joules() == pytest.approx(3.5)
    assert energy_threads() == []


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    root = machine(tmp_path, zone("intel-rapl:0", "package-0", 65_000_000, most=65_532_610))
    meter = open_energy_meter(root)
    assert meter is not None
    with meter:
        for counter, joules in ((65_400_000, 0.4), (200_000, 0.73261), (100_000, 66.16522), (100_000, 66.16522)):
            machine(root, zone("intel-rapl:0", "package-0", counter, most=65_532_610))
            assert meter.joules() == pytest.approx(joules)


def test_wraps_are_seen_when_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_COUNTER_PERIOD_S", 0.01)
    root = machine(tmp_path, zone("intel-rapl:0", "package-0", 0, most=1_000_000))
    file = root / POWERCAP / "intel-rapl:0/energy_uj"
    meter = open_energy_meter(root)
    assert isinstance(meter, energy._Sampled)
    with meter:
        for step in range(1, 31):
            # Not by asking, which would read the counter.
            seen = meter._joules
            # Replaced as a whole, as a half written file would be another counter.
            (tmp_path / "next").write_text(str(step * 400_000 % 1_000_000))
            (tmp_path / "next").replace(file)
            wait_until(lambda before=seen: meter._joules > before)
        assert meter.joules() == pytest.approx(30 * 0.4)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_reading_that_fails_is_made_up_for(tmp_path: Path) -> None:
    root = machine(tmp_path, zone("intel-rapl:0", "package-0", 1_000_000))
    meter = open_energy_meter(root)
    assert meter is not None
    with meter:
        (root / POWERCAP / "intel-rapl:0/energy_uj").write_text("")
        assert meter.joules() == 0
        machine(root, zone("intel-rapl:0", "package-0", 4_000_000))
        assert meter.joules() == pytest.approx(3.0)


@pytest.mark.parametrize("counter", ["", "lots\n"])
def test_a_counter_that_cannot_be_read_gives_no_meter_but_a_reason(tmp_path: Path, counter: str) -> None:
    root = machine(tmp_path, zone("intel-rapl:0", "package-0", 0) | zone("intel-rapl:1", "package-1", 0))
    (root / POWERCAP / "intel-rapl:1/energy_uj").write_text(counter)
    assert open_energy_meter(root) is None
    assert "only root" in why_no_energy(root)


def test_a_machine_that_tells_nothing_says_so(tmp_path: Path) -> None:
    assert open_energy_meter(tmp_path) is None
    assert why_no_energy(tmp_path).startswith("not available: this system shows no energy counter")


def test_sensors_of_a_board_that_may_not_be_read(tmp_path: Path) -> None:
    root = machine(tmp_path, rail(1, "VDD_IN", 5000, 1000) | {f"{INA}/curr1_input": ""})
    assert open_energy_meter(root) is None
    assert "INA3221" in why_no_energy(root)


@pytest.mark.parametrize(
    ("rails", "source", "watts"),
    [
        # Its other rails are parts of it.
        ({"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 3.0, "VDD_SOC": 2.0}, "INA3221 VDD_IN", 8.0),
        ({"POM_5V_CPU": 1.0, "POM_5V_GPU": 0.5, "POM_5V_IN": 3.0}, "INA3221 POM_5V_IN", 3.0),
        (
            {"VDD_CPU_CV": 2.0, "VDD_GPU_SOC": 5.0, "VIN_SYS_5V0": 4.0},
            "INA3221 VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0",
            11.0,
        ),
        ({"VDDQ_VDD2_1V8AO": 1.0, "VDD_GPU_SOC": 5.0, "VIN_SYS_5V0": 4.0}, "INA3221 VDD_GPU_SOC + VIN_SYS_5V0", 9.0),
    ],
)
def test_the_power_of_a_board_is_summed_over_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rails: dict[str, float], source: str, watts: float
) -> None:
    files: dict[str, str] = {}
    for channel, (name, power) in enumerate(rails.items(), start=1):
        files |= rail(channel, name, 5000, round(power * 200))
    before = time.monotonic()
    meter = open_energy_meter(machine(tmp_path, files))
    opened = time.monotonic()
    assert meter is not None
    with meter:
        assert meter.source == source
        time.sleep(0.35)
        least = time.monotonic() - opened
        joules = meter.joules()
        most = time.monotonic() - before
    assert watts * least * 0.999 <= joules <= watts * most * 1.001
    assert energy_threads() == []


def test_power_between_two_readings_is_their_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(energy, "_POWER_PERIOD_S", 3600.0)
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    root = machine(tmp_path, rail(1, "VDD_IN", 5000, 1000))
    meter = open_energy_meter(root)
    assert meter is not None
    with meter:
        clock[0] += 2
        machine(root, rail(1, "VDD_IN", 5000, 2000))
        assert meter.joules() == pytest.approx(2 * 7.5)
        # A reading that fails: the time until the next one takes the mean of those around it.
        (root / INA / "in1_input").write_text("?")
        clock[0] += 1
        assert meter.joules() == pytest.approx(15.0)
        clock[0] += 1
        machine(root, rail(1, "VDD_IN", 5000, 1000))
        assert meter.joules() == pytest.approx(15 + 2 * 7.5)


class NVMLError(Exception):
    pass


def nvml(millijoules: list[int], *, missing: str = "") -> SimpleNamespace:
    """As much of NVML as is used; `missing` names the call that fails."""
    calls: list[str] = []

    def call(name: str, result: Callable[[], object]) -> Callable[..., object]:
        def run(*_: object) -> object:
            calls.append(name)
            if name == missing:
                raise NVMLError(name)
            return result()

        return run

    return SimpleNamespace(
        NVMLError=NVMLError,
        calls=calls,
        nvmlInit=call("nvmlInit", lambda: None),
        nvmlShutdown=call("nvmlShutdown", lambda: None),
        nvmlDeviceGetHandleByIndex=call("nvmlDeviceGetHandleByIndex", lambda: object()),
        nvmlDeviceGetTotalEnergyConsumption=call("nvmlDeviceGetTotalEnergyConsumption", lambda: millijoules[0]),
    )


def test_a_card_is_read_with_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = [5_000_000]
    fake = nvml(counter)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    meter = open_energy_meter(tmp_path)
    assert meter is not None
    with meter:
        assert meter.source == "NVML GPU 0"
        counter[0] += 2500
        assert meter.joules() == 2.5
    assert fake.calls[-1] == "nvmlShutdown"


def test_a_card_is_added_to_the_processor_and_not_to_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = [0]
    monkeypatch.setitem(sys.modules, "pynvml", nvml(counter))
    root = machine(tmp_path / "desk", zone("intel-rapl:0", "package-0", 0))
    meter = open_energy_meter(root)
    assert meter is not None
    with meter:
        assert meter.source == "RAPL package-0 + NVML GPU 0"
        machine(root, zone("intel-rapl:0", "package-0", 4_000_000))
        counter[0] = 1500
        assert meter.joules() == pytest.approx(5.5)
    assert energy_threads() == []
    board = open_energy_meter(machine(tmp_path / "board", rail(1, "VDD_IN", 5000, 1000)))
    assert board is not None
    with board:
        assert board.source == "INA3221 VDD_IN"


@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTotalEnergyConsumption"])
def test_nvml_without_driver_card_or_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    fake = nvml([0], missing=missing)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert open_energy_meter(tmp_path) is None
    assert ("nvmlShutdown" in fake.calls) == (missing != "nvmlInit")
