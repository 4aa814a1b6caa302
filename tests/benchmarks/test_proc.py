"""CPU time, load and memory from recorded files of several systems, damaged ones, and the real ones of this machine."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.benchmarks import proc, sensors

from .machine_files import machine

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's own files")


STAT = """cpu  8457516 375915 1025986 3271730 51643 0 8433 16680 700 0
cpu0 4321465 104745 491216 1652892 24884 0 2487 7973 700 0
cpu1 4136051 271170 534770 1618838 26759 0 5946 8706 0 0
intr 123456 0 9 0
ctxt 99
"""


def test_cpu_times_of_all_cores_and_of_some(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/stat": STAT})
    times = proc.cpu_times(root)
    assert times is not None
    # Guests' time (700) is part of the first field already.
    assert times.busy_s == pytest.approx((8457516 + 375915 + 1025986 + 8433) / 100)
    assert times.idle_s == pytest.approx((3271730 + 51643) / 100)
    assert times.stolen_s == pytest.approx(166.80)
    first, second = proc.cpu_times(root, [0]), proc.cpu_times(root, [1])
    assert first is not None
    assert second is not None
    assert first.stolen_s == pytest.approx(79.73)
    assert first.busy_s + second.busy_s == pytest.approx(times.busy_s, abs=0.05)


@pytest.mark.parametrize(
    "stat", ["", "cpu\n", "cpu 1 2 3\n", "cpu one 2 3 4 5\n", "\n \ncpuX 1 2 3 4\n", "cpu 1 2 nan 4"]
)
def test_damaged_cpu_times_are_none(tmp_path: Path, stat: str) -> None:
    assert proc.cpu_times(machine(tmp_path, {"proc/stat": stat})) is None


def test_old_kernels_tell_fewer_times(tmp_path: Path) -> None:
    times = proc.cpu_times(machine(tmp_path, {"proc/stat": "cpu 100 0 100 500\n"}))
    assert times == proc.CpuTimes(busy_s=2.0, idle_s=5.0, stolen_s=0.0)


def test_time_of_children_that_run_is_ours(tmp_path: Path) -> None:
    """Ours is 70, with the child 71, its child 73 and a stranger 72; a name may hold brackets and blanks."""
    fields = "0 0 0 0 0 0 0 0 0"
    before = proc.own_cpu_s(machine(tmp_path, {"proc/self/stat": f"70 (python) S 1 {fields} 5 5 0 0 20"}))
    after = proc.own_cpu_s(
        machine(
            tmp_path,
            {
                "proc/70/stat": f"70 (python) S 1 {fields} 5 5 0 0 20",
                "proc/71/stat": f"71 (a) b (c) S 70 {fields} 100 50 30 20 20",
                "proc/72/stat": f"72 (stranger) R 1 {fields} 90000 90000 0 0 20",
                "proc/73/stat": f"73 (grandchild) R 71 {fields} 300 0 0 0 20",
                "proc/74/stat": "74 (damaged",
                "proc/75/stat": "",
            },
        )
    )
    assert after - before == pytest.approx(5.0, abs=0.5)


def test_processes_that_are_each_others_parents_end(tmp_path: Path) -> None:
    fields = "0 0 0 0 0 0 0 0 0 100 0 0 0 20"
    stats = {f"proc/{pid}/stat": f"{pid} (x) S {parent} {fields}" for pid, parent in ((1, 2), (2, 1), (3, 3))}
    used = proc.own_cpu_s(machine(tmp_path, {"proc/self/stat": f"1 (x) S 2 {fields}", **stats}))
    own = os.times()
    assert used - sum(own[:4]) == pytest.approx(2.0, abs=0.5)


BURN = """
import sys, time
while time.process_time() < 0.5: pass
print("burnt", flush=True)
sys.stdin.read()
"""


@linux
def test_a_real_child_counts_before_and_after_it_has_ended() -> None:
    before = proc.own_cpu_s()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"burnt\n"
        running = proc.own_cpu_s()
    assert running - before >= 0.45
    assert running - 0.05 <= proc.own_cpu_s() < running + 10


def test_the_load_that_this_process_causes(tmp_path: Path) -> None:
    started = "1 (x) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0"
    root = machine(tmp_path, {"proc/self/stat": f"{started} 100000 0", "proc/uptime": "1060.00 500.00\n"})
    used = sum(os.times()[:4])
    # A process of one minute has brought the average to 63 % of its own share.
    assert proc.own_load(root) == pytest.approx(used / 60 * 0.632, rel=0.1)
    # A container that counts its own uptime.
    assert proc.own_load(machine(tmp_path, {"proc/uptime": "12.00 5.00\n"})) is None
    assert proc.own_load(tmp_path / "nothing") is None


def test_load_average(tmp_path: Path) -> None:
    assert proc.load_average(machine(tmp_path, {"proc/loadavg": "2.18 1.69 1.32 3/114 11534\n"})) == 2.18
    assert proc.load_average(machine(tmp_path, {"proc/loadavg": "x"})) is None
    assert proc.load_average(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("groups", "files", "told"),
    [
        (
            "0::/a.service\n",
            {"a.service/cpu.stat": "usage_usec 9\nnr_periods 50\nnr_throttled 37\nthrottled_usec 3100000\n"},
            (37, 3.1),
        ),
        # Nested: what surrounds us stops us as well.
        (
            "0::/out/in\n",
            {
                "out/cpu.stat": "nr_throttled 2\nthrottled_usec 500000",
                "out/in/cpu.stat": "nr_throttled 1\nthrottled_usec 1",
            },
            (3, 0.500001),
        ),
        # The first generation, in nanoseconds, its mount under two names.
        (
            "3:cpu,cpuacct:/docker/x\n",
            {
                "cpu,cpuacct/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n",
                "cpu/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n",
            },
            (4, 2.5),
        ),
        # Without a limit only use is told.
        ("0::/\n", {"cpu.stat": "usage_usec 1\nuser_usec 1\n"}, None),
        ("0::/\n", {"cpu.stat": "nr_throttled many\n"}, None),
        ("", {}, None),
    ],
)
def test_quota_throttling(tmp_path: Path, groups: str, files: dict[str, str], told: tuple[int, float] | None) -> None:
    root = machine(
        tmp_path, {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    )
    found = proc.quota_throttling(root)
    assert found is None if told is None else found == pytest.approx(told)


def test_memory(tmp_path: Path) -> None:
    told = "MemTotal:       24684096 kB\nMemFree: 1 kB\nMemAvailable:   21359444 kB\nSwapTotal: 2000 kB\nSwapFree: 500 kB\n"
    found = proc.memory(machine(tmp_path, {"proc/meminfo": told}))
    assert found.total_mb == pytest.approx(25276.5, abs=0.1)
    assert found.available_mb == pytest.approx(21872.1, abs=0.1)
    assert found.swap_used_mb == pytest.approx(1.536)
    damaged = proc.memory(machine(tmp_path, {"proc/meminfo": "MemTotal: lots kB\nMemAvailable\nSwapTotal: 5 kB\n"}))
    assert damaged == proc.Memory(total_mb=None, available_mb=None, swap_used_mb=None)


def test_peak_memory_grows_with_what_is_used(tmp_path: Path) -> None:
    assert proc.peak_memory_mb(
        machine(tmp_path, {"proc/self/status": "Name: x\nVmHWM:\t  100000 kB\n"})
    ) == pytest.approx(102.4)
    before = proc.peak_memory_mb()
    assert before is not None
    block = bytearray(os.urandom(1)) * (200 * 2**20)
    after = proc.peak_memory_mb()
    assert after is not None
    assert len(block) / 1e6 * 0.5 < after < 100_000
    assert after >= before


@linux
def test_peak_memory_is_not_that_of_the_process_before_ours() -> None:
    block = bytearray(os.urandom(1)) * (300 * 2**20)
    code = "from edgewright.benchmarks.proc import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < len(block) / 1e6


hostile = st.text() | st.from_regex(
    r"(cpu[0-9]? |MemTotal: |VmHWM: |0::/|processor\t: |cpu MHz\t: )?[-0-9e. kB()\n]{0,40}"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(content=hostile)
def test_no_content_of_a_file_stops_a_reader(tmp_path: Path, content: str) -> None:
    names = ("stat", "loadavg", "meminfo", "uptime", "cpuinfo", "self/stat", "self/cgroup", "self/status", "7/stat")
    files = {f"proc/{name}": content for name in names}
    cpu = "sys/devices/system/cpu/cpu0"
    files |= {f"{cpu}/cpufreq/scaling_{name}": content for name in ("cur_freq", "governor", "driver")}
    files |= {f"{cpu}/thermal_throttle/{name}_throttle_count": content for name in ("core", "package")}
    files |= {"sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": content}
    files |= {"sys/fs/cgroup/cpu.stat": f"nr_throttled {content}"}
    root = tmp_path
    for name, written in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(written.encode("utf-8", "surrogatepass"))
    times = proc.cpu_times(root)
    assert times is None or math.isfinite(times.busy_s + times.idle_s + times.stolen_s)
    assert math.isfinite(proc.own_cpu_s(root))
    proc.own_load(root)
    proc.load_average(root)
    proc.quota_throttling(root)
    proc.memory(root)
    assert (proc.peak_memory_mb(root) or 1) >= 0
    assert all(mhz > 0 for mhz in sensors.frequencies_mhz(root, [0]).values())
    assert all(governor for governor in sensors.governors(root, [0]))
    sensors.throttle_events(root)
    for zone in sensors.cpu_zones(root):
        assert -60 < (zone.celsius() or 0.0) < 200
