"""Energy as the machine itself measures it.

It is that of the whole processor package, graphics card or board, with what idles and with what other programs use. What a
picture costs is therefore told of a machine that does nothing else; subtract nothing.

- x86: RAPL, a counter in the processor. https://docs.kernel.org/power/powercap/powercap.html
- NVIDIA's cards from Volta on: a counter that NVML reads, where `nvidia-ml-py` is installed. It is added to RAPL's, as a
  card's work costs energy in both.
- NVIDIA Jetson: power of the board's supplies, read ten times a second and summed up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from edgewright.benchmarks.jetson import Rail, power_rails
from edgewright.benchmarks.proc import ROOT, number, text

__all__ = ["EnergyMeter", "open_energy_meter", "why_no_energy"]

# A processor's counter of 65 kJ, the smallest that there is, lasts 160 s at 400 W.
_COUNTER_PERIOD_S = 30.0
_POWER_PERIOD_S = 0.1
_INPUTS = ("VDD_IN", "POM_5V_IN")
"""Supplies of a whole Jetson, and with that of all its other ones: Nano, TX1, TX2, Xavier NX, Orin Nano and NX."""
_WITHIN_OTHERS = "VDDQ_VDD2_1V8AO"
"""AGX Orin's memory, which draws from VIN_SYS_5V0."""


class EnergyMeter(ABC):
    """Sums up energy since it was opened. To be closed, or used as a context manager.

    Attributes:
        source: What it measures: "RAPL package-0", "INA3221 VDD_IN", "RAPL package-0 + NVML GPU 0".
    """

    source: str

    @abstractmethod
    def joules(self) -> float:
        """Energy since the meter was opened. A reading that fails is made up for by the next one that does not."""

    @abstractmethod
    def close(self) -> None:
        """End what it started."""

    def __enter__(self) -> EnergyMeter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_energy_meter(root: Path = ROOT) -> EnergyMeter | None:
    """Begin to measure energy; None where the machine does not tell, and then :func:`why_no_energy` does.

    Args:
        root: Stands for `/`.
    """
    rails = _board(power_rails(root))
    if rails:
        return _Rails(rails)
    found: list[EnergyMeter] = []
    packages = _packages(root)
    if packages and all(_microjoules(package) is not None for package in packages):
        found.append(_Rapl(packages))
    card = _Card.open()
    if card is not None:
        found.append(card)
    return _Sum(found) if len(found) > 1 else next(iter(found), None)


def why_no_energy(root: Path = ROOT) -> str:
    """Why :func:`open_energy_meter` found nothing, for a person."""
    packages = _packages(root)
    if packages:
        return (
            "not available: only root may read the processor's counter; "
            "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` lets everyone until the next start"
        )
    if any(root.glob("sys/bus/i2c/drivers/ina3221*/*/*/*_label")):
        return "not available: the board's power sensors (INA3221) may not be read by this user"
    return "not available: this system shows no energy counter (RAPL, INA3221, NVML); virtual machines rarely do"


def _packages(root: Path) -> list[Path]:
    # Also there: parts of packages, and "psys", the platform with the packages in it.
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
    return [zone for zone in zones if text(zone / "name").startswith("package")]


def _microjoules(package: Path) -> float | None:
    return number(text(package / "energy_uj"))


def _board(rails: Sequence[Rail]) -> list[Rail]:
    whole = [rail for name in _INPUTS for rail in rails if rail.name == name]
    return whole[:1] or [rail for rail in rails if rail.name != _WITHIN_OTHERS]


class _Sampled(EnergyMeter):
    """Reads in a thread of its own, as a counter that wraps twice unseen would lose energy, and power is only told now."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._joules = 0.0
        self._thread = threading.Thread(target=self._run, name="edgewright-energy", daemon=True)
        self._thread.start()

    @abstractmethod
    def _since_last(self) -> float:
        """Joules since the last reading that did not fail; zero if this one does."""

    def _sample(self) -> None:
        with self._lock:
            self._joules += self._since_last()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._sample()

    def joules(self) -> float:
        self._sample()
        return self._joules

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class _Rapl(_Sampled):
    def __init__(self, packages: Sequence[Path]) -> None:
        self.source = "RAPL " + " + ".join(text(package / "name") for package in packages)
        self._last = {package: _microjoules(package) for package in packages}
        super().__init__(_COUNTER_PERIOD_S)

    def _since_last(self) -> float:
        used = 0.0
        for package, before in self._last.items():
            now = _microjoules(package)
            if now is None:
                continue
            self._last[package] = now
            if before is not None:
                # From its largest value it goes on with zero.
                wrap = (number(text(package / "max_energy_range_uj")) or 0.0) if now < before else 0.0
                used += max(0.0, now - before + wrap)
        return used / 1e6


class _Rails(_Sampled):
    def __init__(self, rails: Sequence[Rail]) -> None:
        self.source = "INA3221 " + " + ".join(rail.name for rail in rails)
        self._rails = rails
        self._at, self._watts = time.monotonic(), self._power()
        super().__init__(_POWER_PERIOD_S)

    def _power(self) -> float | None:
        watts = [rail.watts() for rail in self._rails]
        return None if None in watts else sum(value for value in watts if value is not None)

    def _since_last(self) -> float:
        at, watts = time.monotonic(), self._power()
        if watts is None:
            return 0.0
        used = (at - self._at) * (watts if self._watts is None else (self._watts + watts) / 2)
        self._at, self._watts = at, watts
        return used


class _Card(EnergyMeter):
    """NVML counts in mJ since its driver was loaded, in 64 bits."""

    source = "NVML GPU 0"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._card = nvml.nvmlDeviceGetHandleByIndex(0)
        self._first = self._last = nvml.nvmlDeviceGetTotalEnergyConsumption(self._card)

    @classmethod
    def open(cls) -> _Card | None:
        try:
            nvml = import_module("pynvml")
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:  # no driver
            return None
        try:
            return cls(nvml)
        except (nvml.NVMLError, AttributeError):  # no card, or one that does not count; NVML from before it could
            nvml.nvmlShutdown()
            return None

    def joules(self) -> float:
        with contextlib.suppress(self._nvml.NVMLError):
            self._last = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card)
        return float(self._last - self._first) / 1e3

    def close(self) -> None:
        self._nvml.nvmlShutdown()


class _Sum(EnergyMeter):
    def __init__(self, meters: Sequence[EnergyMeter]) -> None:
        self.source = " + ".join(meter.source for meter in meters)
        self._meters = meters

    def joules(self) -> float:
        return sum(meter.joules() for meter in self._meters)

    def close(self) -> None:
        for meter in self._meters:
            meter.close()
