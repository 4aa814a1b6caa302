"""CPU time of containers, read from the files that the kernel shows: both generations, nested, and none at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewright.runtime import parallel
from edgewright.runtime.cgroup import cpu_quota
from edgewright.runtime.parallel import available_cores


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{key}": text for key, text in files.items()},
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        # The second generation: as a container sees itself, and as a service of the host.
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/system.slice/a.service\n", {"system.slice/a.service/cpu.max": "50000 100000"}, 0.5),
        ("0::/outer/inner\n", {"outer/cpu.max": "200000 100000", "outer/inner/cpu.max": "max 100000"}, 2.0),
        ("0::/outer/inner\n", {"outer/cpu.max": "200000 100000", "outer/inner/cpu.max": "100000 100000"}, 1.0),
        ("0::/../outside\n", {"cpu.max": "300000 100000"}, 3.0),
        # The first: the controller's own mount; in a container the path is the host's, and not there.
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        # What a kernel does not write.
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("0::/\n", {"cpu.max": "\n"}, None),
        ("nonsense\n", {"cpu.max": "many\n"}, None),
    ],
)
def test_quota_is_the_tightest_of_the_groups(
    tmp_path: Path, groups: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(machine(tmp_path, groups, files)) == quota


def test_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.0, 1), (1e9, None), (None, None)])
def test_quota_limits_the_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int | None) -> None:
    monkeypatch.setattr(parallel, "cpu_quota", lambda: quota)
    assert available_cores() == (cores or len(os.sched_getaffinity(0)))
