"""The processor's clocks, temperatures and throttling, as Linux tells them in its files under /sys.

As in :mod:`edgewright.benchmarks.proc`, a file that is missing or damaged gives None, or is left out. Virtual machines have
next to none of them.
https://docs.kernel.org/admin-guide/pm/cpufreq.html, https://docs.kernel.org/driver-api/thermal/sysfs-api.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.benchmarks.proc import ROOT, number, text

__all__ = ["Zone", "cpu_zones", "frequencies_mhz", "frequency_driver", "governors", "throttle_events"]

_CPUS = "sys/devices/system/cpu"
# Not batteries, radios and disks; and not the PMIC of older Jetsons, which says 100 °C whatever happens.
_PROCESSOR = re.compile(r"cpu|soc|pkg|package|core|cluster|k10temp|zenpower|^tj|^gpu-therm", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Zone:
    """A place whose temperature is told.

    Attributes:
        name: As the kernel names it: "x86_pkg_temp", "cpu-thermal", "coretemp Package id 0", …
        file: Holds thousandths of a degree Celsius.
        trip_c: From this on the kernel slows the machine or stops it, the lowest of such points; None if it has none.
    """

    name: str
    file: Path
    trip_c: float | None

    def celsius(self) -> float | None:
        """The temperature now."""
        return _celsius(self.file)


def cpu_zones(root: Path = ROOT) -> tuple[Zone, ...]:
    """Where the processor's temperature is told: its thermal zones; without those its sensors; without those the board's
    own zone, which some machines never update.
    """
    zones = tuple(_thermal_zones(root))
    return (
        tuple(zone for zone in zones if _PROCESSOR.search(zone.name))
        or tuple(_hwmon_zones(root))
        or tuple(zone for zone in zones if zone.name == "acpitz")
    )


def _thermal_zones(root: Path) -> Iterator[Zone]:
    for folder in sorted(root.glob("sys/class/thermal/thermal_zone[0-9]*")):
        if _celsius(folder / "temp") is None:
            continue
        # At an "active" point only a fan starts.
        trips = [
            _celsius(point.with_name(point.name.replace("_type", "_temp")))
            for point in folder.glob("trip_point_*_type")
            if text(point) in ("passive", "hot", "critical")
        ]
        yield Zone(name=text(folder / "type") or folder.name, file=folder / "temp", trip_c=_lowest(trips))


def _hwmon_zones(root: Path) -> Iterator[Zone]:
    for file in sorted(root.glob("sys/class/hwmon/hwmon[0-9]*/temp[0-9]*_input")):
        chip = text(file.with_name("name"))
        if not _PROCESSOR.search(chip) or _celsius(file) is None:
            continue
        label = text(file.with_name(file.name.replace("_input", "_label")))
        limit = _celsius(file.with_name(file.name.replace("_input", "_crit")))
        yield Zone(name=f"{chip} {label}".strip(), file=file, trip_c=_lowest([limit]))


def _lowest(trips: list[float | None]) -> float | None:
    # Unused points hold zero or less.
    return min((trip for trip in trips if trip is not None and trip > 0), default=None)


def _celsius(file: Path) -> float | None:
    thousandths = number(text(file))
    # Sensors that are off say -256 °C, and worse.
    return None if thousandths is None or not -60e3 < thousandths < 200e3 else thousandths / 1e3


def frequencies_mhz(root: Path, cores: Collection[int]) -> dict[int, float]:
    """The clock of each of these cores now, in MHz, as far as the system tells."""
    found: dict[int, float] = {}
    for core in cores:
        khz = number(text(root / _CPUS / f"cpu{core}/cpufreq/scaling_cur_freq"))
        if khz is not None and khz > 0:
            found[core] = khz / 1e3
    return found or _cpuinfo_mhz(root, cores)


def _cpuinfo_mhz(root: Path, cores: Collection[int]) -> dict[int, float]:
    found: dict[int, float] = {}
    core: float | None = None
    for line in text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.startswith("processor"):
            core = number(value)
        elif key.startswith("cpu MHz") and core is not None and core in cores:
            mhz = number(value)
            if mhz is not None and mhz > 0:
                found[int(core)] = mhz
    return found


def governors(root: Path, cores: Collection[int]) -> tuple[str, ...]:
    """The rules by which the kernel sets these cores' clocks ("performance", "schedutil", …), each once."""
    return _cpufreq(root, cores, "scaling_governor")


def frequency_driver(root: Path, cores: Collection[int]) -> str | None:
    """What sets the clocks: "intel_pstate", "acpi-cpufreq", …"""
    return next(iter(_cpufreq(root, cores, "scaling_driver")), None)


def _cpufreq(root: Path, cores: Collection[int], file: str) -> tuple[str, ...]:
    return tuple(sorted({told for core in cores if (told := text(root / _CPUS / f"cpu{core}/cpufreq" / file))}))


def throttle_events(root: Path = ROOT) -> int | None:
    """How often the hardware has slowed the processor since the machine started; None where nobody counts.

    x86 counts heat by core and by package; NVIDIA's Orin counts too low a voltage and too much current
    (`oc*_event_cnt`). Every core tells its package's count; of those the largest stands for all.
    """
    cores = _counts(root, f"{_CPUS}/cpu[0-9]*/thermal_throttle/core_throttle_count")
    packages = _counts(root, f"{_CPUS}/cpu[0-9]*/thermal_throttle/package_throttle_count")
    currents = _counts(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    if not (cores or packages or currents):
        return None
    return int(sum(cores) + max(packages, default=0) + sum(currents))


def _counts(root: Path, pattern: str) -> list[float]:
    return [value for file in root.glob(pattern) if (value := number(text(file))) is not None]
