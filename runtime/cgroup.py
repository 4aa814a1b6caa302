"""How much CPU time a container may take: a limit that the number of cores does not show.

`docker run --cpus 2` on a machine with 64 cores lets a process see all 64; an engine that starts 64 threads there is
stopped by the kernel for most of every tenth of a second.
https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files, and cgroup-v1/… `cpu.cfs_quota_us` for the older.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["control_groups", "cpu_quota"]

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of CPU time that this process may take, the tightest of its control groups'; None without a limit.

    Args:
        root: Where `proc` and `sys` are.
    """
    limits = [limit for folder in control_groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def control_groups(root: Path) -> Iterator[Path]:
    """Folders of this process's control groups for CPU time, with those around them.

    In a container the path in /proc may be that of the host; what the container sees is then the mount itself, which is
    the last of the parents.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"] if controllers else ["sys/fs/cgroup"]
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(mount, *parts[:depth])


def _limit(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    # "max", and -1 in the older form, stand for no limit.
    if not (quota.isdecimal() and period.isdecimal()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _text(file: Path) -> str:
    """What a file of the kernel says; nothing if this system has no such file."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
