"""Clocks, temperatures and throttling from the files of recorded machines: a laptop, a server, Jetsons, a virtual machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.benchmarks.sensors import (
    cpu_zones,
    frequencies_mhz,
    frequency_driver,
    governors,
    throttle_events,
)

from .machine_files import machine

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"


def zone(number: int, kind: str, temp: str, **trips: str) -> dict[str, str]:
    folder = f"{THERMAL}/thermal_zone{number}"
    files = {f"{folder}/type": f"{kind}\n", f"{folder}/temp": temp}
    for index, (name, value) in enumerate(trips.items()):
        files |= {f"{folder}/trip_point_{index}_type": f"{name}\n", f"{folder}/trip_point_{index}_temp": value}
    return files


def test_clocks_from_cpufreq_and_without_it_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = (
        "processor\t: 0\ncpu MHz\t\t: 2250.006\n\nprocessor\t: 1\ncpu MHz\t\t: 1800.5\n\nprocessor\t: x\ncpu MHz: 5\n"
    )
    root = machine(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert frequencies_mhz(root, [0, 1, 2]) == {0: 2250.006, 1: 1800.5}
    assert frequencies_mhz(root, [1]) == {1: 1800.5}
    machine(
        root,
        {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "3400123\n", f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "<unknown>\n"},
    )
    assert frequencies_mhz(root, [0, 1]) == {0: 3400.123}


def test_governors_and_driver(tmp_path: Path) -> None:
    told = {0: "schedutil\n", 1: "schedutil\n", 2: "performance\n"}
    root = machine(tmp_path, {f"{CPU}/cpu{core}/cpufreq/scaling_governor": name for core, name in told.items()})
    machine(root, {f"{CPU}/cpu0/cpufreq/scaling_driver": "cpufreq-dt\n"})
    assert governors(root, [0, 1, 2, 3]) == ("performance", "schedutil")
    assert governors(root, [0, 1]) == ("schedutil",)
    assert frequency_driver(root, [0, 1]) == "cpufreq-dt"
    assert frequency_driver(root, [1]) is None
    assert governors(tmp_path / "nothing", [0]) == ()


def test_zones_of_a_jetson_leave_out_what_is_not_the_processor(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        zone(0, "AO-therm", "46000\n")
        | zone(1, "CPU-therm", "40500\n", active="30000", passive="95500", critical="97000", hot="0")
        | zone(2, "GPU-therm", "41000\n")
        | zone(3, "PLL-therm", "39000\n")
        | zone(4, "PMIC-Die", "100000\n")
        | zone(5, "cv0-thermal", "-256000\n"),
    )
    zones = cpu_zones(root)
    assert [(found.name, found.celsius(), found.trip_c) for found in zones] == [
        ("CPU-therm", 40.5, 95.5),
        ("GPU-therm", 41.0, None),
    ]
    # The GPU's zone cannot be read while it has no power.
    (root / THERMAL / "thermal_zone2/temp").write_text("")
    assert zones[1].celsius() is None
    assert [found.name for found in cpu_zones(root)] == ["CPU-therm"]


def test_zones_of_a_laptop(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        zone(0, "acpitz", "27800\n", critical="119000")
        | zone(1, "INT3400 Thermal", "20000\n")
        | zone(2, "iwlwifi_1", "90000\n")
        | zone(10, "x86_pkg_temp", "61000\n", passive="-274000"),
    )
    assert [(found.name, found.celsius(), found.trip_c) for found in cpu_zones(root)] == [("x86_pkg_temp", 61.0, None)]


def test_sensors_stand_in_for_zones_and_the_board_for_sensors(tmp_path: Path) -> None:
    root = machine(tmp_path, zone(0, "acpitz", "16800\n") | zone(1, "nvme", "70000\n"))
    assert [found.name for found in cpu_zones(root)] == ["acpitz"]
    machine(
        root,
        {
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "70000\n",
            "sys/class/hwmon/hwmon3/name": "k10temp\n",
            "sys/class/hwmon/hwmon3/temp1_input": "55125\n",
            "sys/class/hwmon/hwmon3/temp1_label": "Tctl\n",
            "sys/class/hwmon/hwmon4/name": "coretemp\n",
            "sys/class/hwmon/hwmon4/temp2_input": "48000\n",
            "sys/class/hwmon/hwmon4/temp2_crit": "100000\n",
        },
    )
    assert [(found.name, found.celsius(), found.trip_c) for found in cpu_zones(root)] == [
        ("k10temp Tctl", 55.125, None),
        ("coretemp", 48.0, 100.0),
    ]
    assert cpu_zones(tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("counts", "events"),
    [
        ({}, None),
        ({"cpu0/thermal_throttle/core_throttle_count": "broken"}, None),
        ({"cpu0/thermal_throttle/core_throttle_count": "0\n"}, 0),
        # Both cores tell the same package.
        (
            {
                "cpu0/thermal_throttle/core_throttle_count": "3\n",
                "cpu1/thermal_throttle/core_throttle_count": "4\n",
                "cpu0/thermal_throttle/package_throttle_count": "10\n",
                "cpu1/thermal_throttle/package_throttle_count": "10\n",
            },
            17,
        ),
    ],
)
def test_throttle_events(tmp_path: Path, counts: dict[str, str], events: int | None) -> None:
    assert throttle_events(machine(tmp_path, {f"{CPU}/{name}": count for name, count in counts.items()})) == events


def test_too_much_current_throttles_an_orin(tmp_path: Path) -> None:
    counts = {"oc1_event_cnt": "0\n", "oc2_event_cnt": "15\n", "oc3_event_cnt": "37\n", "oc3_throt_en": "1\n"}
    root = machine(tmp_path, {f"sys/class/hwmon/hwmon3/{name}": count for name, count in counts.items()})
    assert throttle_events(root) == 52
