"""What an NVIDIA Jetson tells of itself; nothing here changes a setting.

Its tools print text for people, which differs by board and by JetPack (4 on Nano, TX2 and Xavier; 5 and 6 on Xavier and
Orin; 7 on Thor): what a line does not have is None or left out, and a damaged one gives what can be read.
https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgewright.benchmarks.proc import ROOT, number, text
from edgewright.runtime.machine import l4t_release_in

__all__ = [
    "Clock",
    "Load",
    "PowerMode",
    "Rail",
    "Tegrastats",
    "clocks",
    "jetson_model",
    "l4t_release",
    "parse_clocks",
    "parse_power_mode",
    "parse_tegrastats",
    "power_mode",
    "power_rails",
]

_WHOLE = "([0-9]{1,12})"
_TOOL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class PowerMode:
    """What limits the board's clocks and cores: "MAXN", "MODE_15W_6CORE", "25W", …, with its number for `nvpmodel -m`."""

    name: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Clock:
    """The range within which a clock may move, and where it is. `jetson_clocks` makes the first two equal."""

    min_mhz: float
    max_mhz: float
    current_mhz: float


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a unit is, in percent, and its clock, where told."""

    percent: int
    mhz: int | None


@dataclass(frozen=True, slots=True)
class Tegrastats:
    """One line of tegrastats.

    Attributes:
        ram_used_mb: Of `ram_total_mb`; as NVIDIA counts, MB of 2^20 bytes.
        ram_total_mb: The same.
        swap_used_mb: The same.
        cores: None for a core that is off.
        memory: The memory's controller (EMC).
        gpu: GR3D.
        temperatures_c: By sensor, in degrees Celsius; sensors that are off are left out.
        rails_mw: Power of each supply now, in mW. Sensors err; a rail without load may be below zero.
    """

    ram_used_mb: int | None
    ram_total_mb: int | None
    swap_used_mb: int | None
    cores: tuple[Load | None, ...]
    memory: Load | None
    gpu: Load | None
    temperatures_c: dict[str, float]
    rails_mw: dict[str, int]


@dataclass(frozen=True, slots=True)
class Rail:
    """A supply whose power an INA3221 on the board measures; `files` hold what is to be multiplied, and by `scale`."""

    name: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float | None:
        """Its power now."""
        power = self.scale
        for file in self.files:
            factor = number(text(file))
            if factor is None:
                return None
            power *= factor
        return power


def jetson_model(root: Path = ROOT) -> str | None:
    """The board's name, if it is a Jetson."""
    name = text(root / "proc/device-tree/model")
    # "NVIDIA Jetson Nano Developer Kit"; TX1 and TX2 under JetPack 3: "jetson_tx1", "quill".
    return name if "jetson" in name.lower() or l4t_release(root) else None


def l4t_release(root: Path = ROOT) -> str | None:
    """NVIDIA's release of Linux, like "36.4.3"; 32 is JetPack 4, 35 is 5, 36 is 6 and 38 is 7."""
    return l4t_release_in(text(root / "etc/nv_tegra_release"))


def power_mode() -> PowerMode | None:
    """What `nvpmodel` says, if it is there."""
    return parse_power_mode(_output("nvpmodel", "-q"))


def clocks() -> dict[str, Clock]:
    """What `jetson_clocks` says; it lets only root ask."""
    return parse_clocks(_output("jetson_clocks", "--show"))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # not there, or stuck
        return ""
    return done.stdout.decode("utf-8", "replace")


def parse_power_mode(told: str) -> PowerMode | None:
    """Read the output of `nvpmodel -q`, with or without `--verbose`: the name, and its number in a line of its own.

    Warnings about fans come before, errors about clocks that only root may read after.
    """
    name = re.search(r"NV Power Mode:[ \t]*(\S{1,80})", told)
    if name is None:
        return None
    digits = re.search(r"(?m)^\s*([0-9]{1,4})\s*$", told[name.end() :])
    return PowerMode(name[1], None if digits is None else int(digits[1]))


def parse_clocks(told: str) -> dict[str, Clock]:
    """Read the output of `jetson_clocks --show`: clocks by name ("cpu0", …, "GPU", "EMC"); cores that are off are left
    out.
    """
    found: dict[str, Clock] = {}
    for line in told.splitlines():
        name = re.match(r"\s*(cpu[0-9]{1,3}|GPU|EMC)\b", line)
        limits = re.search(rf"MinFreq={_WHOLE} MaxFreq={_WHOLE} CurrentFreq={_WHOLE}", line)
        if name is None or limits is None or "Online=0" in line:
            continue
        # Cores are told in kHz, the rest in Hz.
        per_mhz = 1e3 if name[1].startswith("cpu") else 1e6
        found[name[1]] = Clock(*(int(value) / per_mhz for value in limits.groups()))
    return found


def parse_tegrastats(line: str) -> Tegrastats:
    """Read one line of `tegrastats`."""
    ram = re.search(rf"\bRAM {_WHOLE}/{_WHOLE}MB", line)
    swap = re.search(rf"\bSWAP {_WHOLE}/{_WHOLE}MB", line)
    cores = re.search(rf"\b(?:CPU|cpu) \[([^\]]*)\](?:@{_WHOLE})?", line)
    temperatures = {
        name: float(value)
        for name, value in re.findall(r"(?<!\S)(\w{1,40})@(-?[0-9]{1,4}(?:\.[0-9]{1,6})?)C(?![^\s/])", line)
        if float(value) > -200  # -256 stands for a sensor that is off
    }
    # Now, on average since tegrastats started and, lately, at most; with their unit since JetPack 5.
    rails = re.findall(r"(?<!\S)([A-Z]\w{0,40}) (-?[0-9]{1,9})(?:mW)?(?:/-?[0-9]{1,9}(?:mW)?){1,2}(?!\S)", line)
    return Tegrastats(
        ram_used_mb=None if ram is None else int(ram[1]),
        ram_total_mb=None if ram is None else int(ram[2]),
        swap_used_mb=None if swap is None else int(swap[1]),
        cores=() if cores is None else tuple(_load(core, cores[2]) for core in cores[1].split(",")),
        memory=_load_of("EMC", line),
        gpu=_load_of("GR3D", line),
        temperatures_c=temperatures,
        rails_mw={name: int(value) for name, value in rails if name != "NC"},  # not connected
    )


def _load_of(unit: str, line: str) -> Load | None:
    told = re.search(rf"\b{unit}(?:_FREQ)? ([0-9]\S*)", line)
    return None if told is None else _load(told[1], None)


def _load(told: str, clock_of_all: str | None) -> Load | None:
    """`told` is "12%@1190", "45%@[621]", "12%@[318,316]" (the first is taken), "12%" or "off"."""
    load = re.match(rf"\s*([0-9]{{1,3}})%(?:@\[?{_WHOLE})?", told)
    if load is None:
        return None
    clock = load[2] or clock_of_all
    return Load(int(load[1]), None if clock is None else int(clock))


def power_rails(root: Path = ROOT) -> tuple[Rail, ...]:
    """The supplies that the board measures, those read that can be, sorted by name.

    Since JetPack 5 in mV and mA, of three channels a chip; further ones are sums. Before, in mW.
    """
    found = []
    for label in root.glob("sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[123]_label"):
        channel = label.name[2]
        files = (label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input"))
        found.append(Rail(text(label), files, 1e-6))
    for label in root.glob("sys/bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_[0-9]"):
        found.append(Rail(text(label), (label.with_name(f"in_power{label.name[-1]}_input"),), 1e-3))
    return tuple(
        sorted(
            (rail for rail in found if rail.name not in ("", "NC") and rail.watts() is not None),
            key=lambda rail: rail.name,
        )
    )
