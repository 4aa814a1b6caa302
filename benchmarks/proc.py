"""What Linux tells about this process and its neighbours: CPU time, load and memory, from the files under /proc.

Each reader takes the folder that stands for `/`, so that a recorded tree can be read. A file that is missing, that may not
be read or that is damaged gives None, or is left out: every system has only some of them, and containers hide more.
https://docs.kernel.org/filesystems/proc.html
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgewright.runtime import cgroup

__all__ = [
    "ROOT",
    "CpuTimes",
    "Memory",
    "cpu_times",
    "load_average",
    "memory",
    "number",
    "own_cpu_s",
    "own_load",
    "peak_memory_mb",
    "quota_throttling",
    "text",
]

ROOT = Path("/")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MB_PER_KIB = 1024 / 1e6
_LOAD_AVERAGE_S = 60.0


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU time since the machine started, summed over cores.

    Attributes:
        busy_s: Programs, the kernel and interrupts.
        idle_s: Nothing to do, or waiting for a disk.
        stolen_s: The hypervisor gave the core to another machine although this one had something to do.
    """

    busy_s: float
    idle_s: float
    stolen_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory in MB (10^6 bytes); None is what the system does not tell."""

    total_mb: float | None
    available_mb: float | None
    swap_used_mb: float | None


def text(file: Path) -> str:
    """What a file of the kernel says, without blanks around it; nothing if it is not there or may not be read."""
    try:
        # Unbuffered, as these are read twice a second while something else is measured.
        with file.open("rb", buffering=0) as opened:
            return opened.read().decode("utf-8", "replace").strip(" \t\r\n\x00")
    # The kernel answers with an error where a sensor is switched off; no name of a file holds a null.
    except (OSError, ValueError):
        return ""


def number(word: str) -> float | None:
    """A number of a size that a counter may have, or None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < 1e19 else None  # nan compares false


def cpu_times(root: Path = ROOT, cores: Collection[int] | None = None) -> CpuTimes | None:
    """What the cores did since the machine started; in a container too these are the machine's.

    Args:
        root: Stands for `/`.
        cores: Numbers of those to count; None for all.
    """
    names = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    busy = idle = stolen = 0.0
    found = False
    for line in text(root / "proc/stat").splitlines():
        words = line.split()
        if not words or words[0] not in names:
            continue
        fields = [number(word) for word in words[1:9]]
        if len(fields) < 4 or None in fields:
            continue
        # Old kernels have fewer; what guests used, further right, is part of the first two.
        user, nice, system, nothing, disk, hard, soft, steal = [value or 0.0 for value in fields] + [0.0] * (
            8 - len(fields)
        )
        found = True
        busy += user + nice + system + hard + soft
        idle += nothing + disk
        stolen += steal
    return CpuTimes(busy / _TICKS_PER_S, idle / _TICKS_PER_S, stolen / _TICKS_PER_S) if found else None


def own_cpu_s(root: Path = ROOT) -> float:
    """Seconds of CPU time that this process has used, with its children and theirs, those that have ended and those
    that run.

    The system adds a child's time to ours when it has ended and been waited for; until then it is read from the child.
    """
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + _living_children_s(root / "proc")


def _living_children_s(proc: Path) -> float:
    try:
        folders = [folder for folder in proc.iterdir() if folder.name.isdecimal()]
    except OSError:  # not Linux
        return 0.0
    used_s: dict[str, float] = {}
    children: dict[str, list[str]] = {}
    for folder in folders:
        fields = _process_fields(folder)
        # Its own time in programs and in the kernel, and that of its children that have ended.
        ticks = [number(word) for word in fields[11:15]]
        if len(ticks) == 4:  # else it has ended meanwhile
            used_s[folder.name] = sum(value for value in ticks if value is not None) / _TICKS_PER_S
            children.setdefault(fields[1], []).append(folder.name)
    # As this /proc numbers processes, which may be another container's.
    found = [text(proc / "self/stat").partition(" ")[0]]
    total = 0.0
    while found:
        for child in children.pop(found.pop(), []):
            total += used_s[child]
            found.append(child)
    return total


def _process_fields(process: Path) -> list[str]:
    """The fields of proc_pid_stat(5) from the third on; the second, the name, may hold blanks and brackets."""
    return text(process / "stat").rpartition(")")[2].split()


def own_load(root: Path = ROOT) -> float | None:
    """How much of the load average this process would have caused, had it always been as busy as on average."""
    fields = _process_fields(root / "proc/self")
    started = number(fields[19]) if len(fields) > 19 else None
    uptime = number(text(root / "proc/uptime").partition(" ")[0])
    if started is None or uptime is None:
        return None
    # Some containers show their own uptime beside the machine's start of processes.
    age_s = uptime - started / _TICKS_PER_S
    return own_cpu_s(root) / age_s * -math.expm1(-age_s / _LOAD_AVERAGE_S) if age_s > 0 else None


def load_average(root: Path = ROOT) -> float | None:
    """Processes that ran or waited for a core, averaged over about the last minute; this one among them."""
    told = number(text(root / "proc/loadavg").partition(" ")[0])
    if told is None and root == ROOT and hasattr(os, "getloadavg"):
        try:
            return os.getloadavg()[0]
        except OSError:  # the system does not say
            return None
    return told


def quota_throttling(root: Path = ROOT) -> tuple[int, float] | None:
    """How often this process's control groups were stopped for having used up their share of CPU time, and for how many
    seconds, summed over cores; None where no group has a share.
    """
    # The first generation's mount often has a second name, and says the same there.
    texts = {text(folder / "cpu.stat") for folder in cgroup.control_groups(root)}
    stats = [dict(re.findall(r"(?m)^(\w+) ([0-9]{1,18})$", told)) for told in texts]
    told = [stat for stat in stats if "nr_throttled" in stat]
    if not told:
        return None
    # The second generation counts microseconds, the first nanoseconds.
    seconds = sum(int(stat.get("throttled_usec", 0)) / 1e6 + int(stat.get("throttled_time", 0)) / 1e9 for stat in told)
    return sum(int(stat["nr_throttled"]) for stat in told), seconds


def memory(root: Path = ROOT) -> Memory:
    """The machine's memory; a container's limit is not in it."""
    kib = {
        key: value
        for line in text(root / "proc/meminfo").splitlines()
        if (key := line.partition(":")[0]) in {"MemTotal", "MemAvailable", "SwapTotal", "SwapFree"}
        and (value := number(line.partition(":")[2].removesuffix("kB"))) is not None
    }
    total, available, swap, free = map(kib.get, ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree"))
    return Memory(
        total_mb=None if total is None else total * _MB_PER_KIB,
        available_mb=None if available is None else available * _MB_PER_KIB,
        swap_used_mb=None if swap is None or free is None else (swap - free) * _MB_PER_KIB,
    )


def peak_memory_mb(root: Path = ROOT) -> float | None:
    """The most memory that this process has had resident so far, in MB (10^6 bytes), children not counted.

    Linux's own file comes first: `ru_maxrss` of a started program is never below what the process had that started it.
    """
    told = re.search(r"(?m)^VmHWM:\s*([0-9]{1,18}) kB", text(root / "proc/self/status"))
    if told:
        return int(told[1]) * _MB_PER_KIB
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak / 1e6 if os.uname().sysname == "Darwin" else peak * _MB_PER_KIB
