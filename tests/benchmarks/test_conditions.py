"""The watch over a measurement: on machines made of files whose counters run, and on this one, made busy for real."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.benchmarks import conditions
from edgewright.benchmarks.conditions import Conditions, Watch
from edgewright.benchmarks.findings import findings_of

from .machine_files import machine

CPU = "sys/devices/system/cpu"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's own files")


def stat(*, busy_s: float, idle_s: float, stolen_s: float = 0.0) -> dict[str, str]:
    """Seconds of all the cores that this process may use together."""
    per_core = [round(seconds * 100 / len(CORES)) for seconds in (busy_s, idle_s, stolen_s)]
    lines = [f"cpu{core} {per_core[0]} 0 0 {per_core[1]} 0 0 0 {per_core[2]} 0 0" for core in CORES]
    # Others' cores are busy; that is not our matter.
    return {"proc/stat": "\n".join([*lines, "cpu9999 99999999 0 0 0 0 0 0 0 0 0"])}


def meminfo(available_kib: int, swap_free_kib: int = 1000000) -> dict[str, str]:
    told = (
        f"MemTotal: 4000000 kB\nMemAvailable: {available_kib} kB\nSwapTotal: 1000000 kB\nSwapFree: {swap_free_kib} kB\n"
    )
    return {"proc/meminfo": told}


def wait_for_look(watch: Watch, seen: list[float]) -> None:
    count = len(seen)
    deadline = time.monotonic() + 60
    while len(seen) <= count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_quiet_machine_has_no_findings(tmp_path: Path) -> None:
    root = machine(tmp_path, stat(busy_s=0, idle_s=100) | meminfo(3000000) | {"proc/loadavg": "0.10 0.2 0.3 1/100 5"})
    with Watch(root) as watch:
        machine(root, stat(busy_s=50, idle_s=1100))
    seen = watch.conditions
    # The processor was busy for 50 of 1050 s, and hardly with us.
    assert seen.others_busy == pytest.approx(50 / 1050, abs=0.01)
    assert (seen.stolen, seen.load_before, seen.swap_grown_mb) == (0.0, 0.10, 0.0)
    assert (seen.throttled, seen.quota_throttled, seen.power_mode, seen.clocks) == (None, None, None, {})
    assert seen.memory_available_mb_min == pytest.approx(3072.0)
    assert seen.findings == ()
    document = json.loads(json.dumps(dataclasses.asdict(seen)))
    assert document["cores"] == len(CORES)
    assert document["energy_source"].startswith("not available")


def test_the_time_of_our_children_is_ours(tmp_path: Path) -> None:
    """A child that runs used 40 of the 50 busy seconds of 100."""
    fields = "S 70 0 0 0 0 0 0 0 0 0"
    ourselves = {"proc/self/stat": "70 (python) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 20"}
    root = machine(
        tmp_path, stat(busy_s=10, idle_s=10) | ourselves | {"proc/71/stat": f"71 (child) {fields} 500 0 0 0 20"}
    )
    with Watch(root) as watch:
        machine(root, stat(busy_s=60, idle_s=60) | {"proc/71/stat": f"71 (child) {fields} 4000 100 300 100 20"})
    assert watch.conditions.others_busy == pytest.approx(0.1, abs=0.02)


def test_everything_that_goes_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "_DEAREST", 1e9)
    core = f"{CPU}/cpu{CORES[0]}"
    zone = "sys/class/thermal/thermal_zone0"
    root = machine(
        tmp_path,
        stat(busy_s=0, idle_s=0)
        | meminfo(3000000)
        | {
            "proc/loadavg": "5000.00 1 1 1/100 5",
            f"{core}/cpufreq/scaling_cur_freq": "3000000\n",
            f"{core}/cpufreq/scaling_governor": "powersave\n",
            f"{core}/cpufreq/scaling_driver": "acpi-cpufreq\n",
            f"{core}/thermal_throttle/core_throttle_count": "100\n",
            f"{zone}/type": "cpu-thermal\n",
            f"{zone}/temp": "50000\n",
            f"{zone}/trip_point_0_type": "passive\n",
            f"{zone}/trip_point_0_temp": "80000\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.stat": "nr_throttled 5\nthrottled_usec 1000000\n",
        },
    )
    with Watch(root, period_s=0.002) as watch:
        for _ in range(10):
            wait_for_look(watch, watch._mhz)
        machine(root, {f"{core}/cpufreq/scaling_cur_freq": "1200000\n", f"{zone}/temp": "77000\n"} | meminfo(100000))
        fast = len(watch._mhz)
        while len(watch._mhz) < 4 * fast:
            wait_for_look(watch, watch._mhz)
        machine(
            root,
            # We have used far less than a second.
            stat(busy_s=600, idle_s=300, stolen_s=100)
            | meminfo(2000000, swap_free_kib=900000)
            | {
                f"{zone}/temp": "60000\n",
                f"{core}/thermal_throttle/core_throttle_count": "107\n",
                "sys/fs/cgroup/cpu.stat": "nr_throttled 42\nthrottled_usec 4100000\n",
            },
        )
    seen = dataclasses.replace(watch.conditions, seconds=1000.0)
    assert seen.others_busy == pytest.approx(0.6, abs=0.02)
    assert seen.stolen == pytest.approx(0.1, abs=0.001)
    assert (seen.frequency_mhz_min, seen.frequency_mhz_median, seen.frequency_mhz_max) == (1200.0, 1200.0, 3000.0)
    assert seen.frequency_fell == pytest.approx(0.6)
    assert (seen.governor, seen.frequency_driver) == ("powersave", "acpi-cpufreq")
    assert (seen.temperature_zone, seen.temperature_c_start, seen.temperature_c_max) == ("cpu-thermal", 50.0, 77.0)
    assert seen.temperature_c_trip == 80.0
    assert (seen.throttled, seen.quota_throttled, seen.quota_throttled_s) == (7, 37, pytest.approx(3.1))
    assert seen.memory_available_mb_min == pytest.approx(102.4)
    assert seen.swap_grown_mb == pytest.approx(102.4)
    found = findings_of(seen)
    wanted = ("60%", "10%", "37 times", "5000.0", "7 times", "60%", "powersave", "77 °C", "102 of 4096 MB", "102 MB")
    assert len(found) == len(wanted)
    for sentence, figure in zip(found, wanted, strict=True):
        assert figure in sentence
        assert sentence.endswith(".")
    # Those of shares may be left out, as so short a watch has too few ticks.
    assert set(found[2:]) <= set(watch.conditions.findings) <= set(found)


QUIET = Conditions(seconds=10.0, cores=4, machine_cores=8)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ({}, ""),
        ({"others_busy": 0.10, "stolen": 0.05, "load_before": 4.0}, ""),
        ({"others_busy": 0.23}, "Other programs took 23% of the processor's time during the measurement."),
        ({"others_busy": 0.9, "stolen": 0.9, "seconds": 0.4}, ""),
        ({"stolen": 0.06}, "The hypervisor gave 6% of the processor's time to other machines."),
        ({"load_before": 4.1}, "its load was 4.1, of which others caused about 4.1, with 8 cores."),
        # Our own training, just before.
        ({"load_before": 7.0, "own_load_before": 6.5}, ""),
        ({"load_before": 7.0, "own_load_before": 1.0}, "others caused about 6.0"),
        ({"quota_throttled": 1, "quota_throttled_s": 0.25}, "used up its share of CPU time 1 time;"),
        ({"throttled": 0, "quota_throttled": 0}, ""),
        ({"throttled": 1}, "slowed down for heat or lack of power 1 time."),
        ({"frequency_fell": 0.10}, ""),
        ({"frequency_fell": -0.5}, ""),
        ({"frequency_fell": 0.11, "frequency_mhz_median": 1800.4}, "fell by 11%"),
        ({"governor": "powersave", "frequency_driver": "intel_pstate"}, ""),
        ({"governor": "powersave", "frequency_driver": "amd-pstate-epp"}, ""),
        ({"governor": "schedutil"}, ""),
        ({"governor": "powersave", "frequency_driver": "intel_cpufreq"}, "driver 'intel_cpufreq'"),
        ({"governor": "performance, powersave"}, "driver 'unknown'"),
        ({"temperature_c_max": 85.0, "temperature_zone": "x86_pkg_temp"}, ""),
        ({"temperature_c_max": 86.0, "temperature_zone": "x86_pkg_temp"}, "reached 86 °C (x86_pkg_temp)."),
        ({"temperature_c_max": 70.0, "temperature_zone": "soc", "temperature_c_trip": 75.0}, "from 75 °C on"),
        ({"temperature_c_max": 69.0, "temperature_zone": "soc", "temperature_c_trip": 75.0}, ""),
        ({"memory_available_mb_min": 511.0, "memory_mb": 64000.0}, "Little memory was left: 511 of 64000 MB."),
        ({"memory_available_mb_min": 511.0, "memory_mb": 4000.0}, ""),
        ({"memory_available_mb_min": 300.0}, "Little memory was left: 300 MB."),
        ({"swap_grown_mb": 10.0}, ""),
        ({"swap_grown_mb": -500.0}, ""),
        ({"swap_grown_mb": 20.0}, "moved 20 MB of memory to disk"),
    ],
)  # fmt: skip
def test_where_doubt_begins(seen: dict[str, object], found: str) -> None:
    told = findings_of(dataclasses.replace(QUIET, **seen))
    if found:
        [sentence] = told
        assert found in sentence
    else:
        assert told == ()


def test_times_of_an_emulated_processor_are_doubtful_above_all(tmp_path: Path) -> None:
    """As qemu-user has it: the host's own cpuinfo, read by a program for another kind of processor."""
    foreign = {"x86_64": "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"}.get(
        platform.machine(), "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t: avx2\n"
    )
    root = machine(tmp_path, {"proc/cpuinfo": foreign, "proc/loadavg": "5000.00 1 1 1/100 5"})
    with Watch(root) as watch:
        pass
    first, second = watch.conditions.findings
    assert "The processor is emulated on" in first
    assert "5000.0" in second


def test_a_machine_that_tells_nothing_is_watched_all_the_same(tmp_path: Path) -> None:
    with Watch(tmp_path / "nothing") as watch:
        pass
    seen = watch.conditions
    told = {name for name, value in dataclasses.asdict(seen).items() if value not in (None, {}, ())}
    assert told == {"seconds", "cores", "machine_cores", "energy_source"}
    assert seen.findings == ()


def test_conditions_are_known_at_the_end_even_of_a_failure(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    with pytest.raises(RuntimeError, match="when the watch has ended"):
        _ = watch.conditions
    with pytest.raises(ZeroDivisionError), watch:
        raise ZeroDivisionError
    assert watch.conditions.seconds > 0
    assert not [thread for thread in threading.enumerate() if thread.name == "edgewright-watch"]


def test_a_jetson_tells_its_power_mode_and_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    machine(
        tools,
        {
            "nvpmodel": "#!/bin/sh\nprintf 'NV Power Mode: MODE_15W_6CORE\\n2\\n'\n",
            "jetson_clocks": "#!/bin/sh\necho 'GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=612000000'\n",
        },
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    ina = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    files = {
        f"{ina}/{name}": value
        for name, value in {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "900"}.items()
    }
    root = machine(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\x00"} | files)
    with Watch(root) as watch:
        pass
    document = json.loads(json.dumps(dataclasses.asdict(watch.conditions)))
    assert document["power_mode"] == "MODE_15W_6CORE (2)"
    assert document["clocks"] == {"GPU": {"min_mhz": 306.0, "max_mhz": 918.0, "current_mhz": 612.0}}
    assert document["energy_source"] == "INA3221 VDD_IN"


def test_dear_sensors_are_read_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that takes CPU time is followed by as much more without one as keeps it within its share."""
    monkeypatch.setattr(conditions, "_DEAREST", 0.05)
    looks = []

    def dear(root: Path, cores: list[int]) -> dict[int, float]:
        started = time.thread_time()
        while time.thread_time() - started < 0.02:
            pass
        looks.append(time.monotonic())
        return {}

    monkeypatch.setattr(conditions, "frequencies_mhz", dear)
    with Watch(tmp_path, period_s=0.001):
        while len(looks) < 3:
            time.sleep(0.01)
    # The first belongs to the start, and the last to the end.
    assert looks[2] - looks[1] >= 0.4


@pytest.fixture
def one_core() -> Iterator[None]:
    """On a machine of many cores one busy program would not be much."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


# The one in between ends at once; what it started is then no longer ours, and ends by itself should nobody end it.
STRANGER = """
import subprocess, sys
burn = "import time\\nwhile time.process_time() < 20: pass"
nowhere = subprocess.DEVNULL
print(subprocess.Popen([sys.executable, "-c", burn], start_new_session=True, stdout=nowhere, stderr=nowhere).pid)
"""


@linux
@pytest.mark.usefixtures("one_core")
def test_a_strangers_work_is_seen() -> None:
    between = subprocess.run([sys.executable, "-c", STRANGER], capture_output=True, text=True, check=True)
    stranger = int(between.stdout)
    try:
        with Watch() as watch:
            time.sleep(1.5)
    finally:
        os.kill(stranger, signal.SIGKILL)
    seen = watch.conditions
    assert seen.cores == 1
    assert seen.others_busy is not None
    assert seen.others_busy > 0.5
    assert any("Other programs took" in sentence for sentence in seen.findings)
