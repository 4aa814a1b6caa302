"""NVIDIA Jetson's tools: what they print on boards from TX1 to Thor, under JetPack 3 to 7, and damaged lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.benchmarks import jetson
from edgewright.benchmarks.jetson import Clock, Load, PowerMode, parse_clocks, parse_power_mode, parse_tegrastats

TX1 = (
    "RAM 3468/3983MB (lfb 48x4MB) SWAP 873/8192MB (cached 295MB) cpu [17%,13%,29%,5%]@408 EMC 1%@408 APE 25 GR3D 3%@76"
)
TX1_JETPACK_4 = (
    "RAM 1179/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102,0%@102,0%@102] EMC_FREQ 7%@408 "
    "GR3D_FREQ 0%@76 APE 25 AO@42.5C CPU@37.5C GPU@39C PLL@37C Tdiode@42.75C PMIC@100C Tboard@42C thermal@38.5C "
    "VDD_IN 2532/2698 VDD_CPU 76/178 VDD_GPU 19/19"
)
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
XAVIER = (
    "RAM 1545/31919MB (lfb 7400x4MB) SWAP 2/15959MB (cached 1MB) CPU [0%@1190,1%@1190,off,off] EMC_FREQ 0%@1331 "
    "GR3D_FREQ 0%@114 VIC_FREQ 115 APE 150 MTS fg 0% bg 0% AUX@36C CPU@36.5C thermal@35.7C Tboard@37C AO@35C GPU@35C "
    "Tdiode@38.75C PMIC@50C GPU 467mW/467mW CPU 467mW/467mW SOC 1245mW/1245mW CV 0mW/0mW VDDRQ 311mW/311mW "
    "SYS5V 2768mW/2768mW"
)
AGX_ORIN = (
    "10-16-2023 10:59:22 RAM 1205/30623MB (lfb 6429x4MB) SWAP 0/15311MB (cached 0MB) CPU [0%@729,0%@730,1%@729] "
    "EMC_FREQ 0%@204 GR3D_FREQ 0%@114 GR3D2_FREQ 0%@115 NVJPG1 729 VIC_FREQ 729 APE 233 CV0@-256C CPU@43.5C "
    "Tdiode@32.5C SOC2@40.062C VDD_GPU_SOC 4788mW/4788mW VDD_CPU_CV -398mW/-398mW VIN_SYS_5V0 3842mW/3842mW "
    "NC 0mW/0mW VDDQ_VDD2_1V8AO 707mW/707mW NC 0mW/0mW"
)
ORIN_NANO = (
    "11-15-2024 08:38:09 RAM 6185/7620MB (lfb 8x2MB) SWAP 851/3810MB (cached 1MB) CPU [15%@729,11%@729,off] "
    "EMC_FREQ 43%@2133 GR3D_FREQ 63%@[621] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@53.968C soc2@52.437C "
    "tj@53.968C VDD_IN 12479mW/12479mW VDD_CPU_GPU_CV 4667mW/4667mW VDD_SOC 2817mW/2817mW"
)
LATELY = "GR3D_FREQ 12% cpu@49.843C/50.1C tj@50.875C/50.9C VDD_IN 4548mW/4549mW/4550mW VDD_SOC 1489mW/1489mW/1489mW"
THOR = (
    "07-31-2026 14:45:55 RAM 86905/125772MB (lfb 368x4MB) CPU [12%@972,10%@972,off,33%@1890] cpu@39.812C "
    "soc012@38.812C VDD_GPU 3561mW/3561mW VDD_CPU_SOC_MSS 7910mW/7910mW VIN_SYS_5V0 7620mW/7620mW VIN 26686mW/26686mW"
)


@pytest.mark.parametrize(
    ("line", "ram_mb", "swap_mb", "cores", "memory", "gpu"),
    [
        (
            TX1,
            (3468, 3983),
            873,
            (Load(17, 408), Load(13, 408), Load(29, 408), Load(5, 408)),
            Load(1, 408),
            Load(3, 76),
        ),
        (
            TX1_JETPACK_4,
            (1179, 3983),
            None,
            (Load(1, 102), Load(4, 102), Load(0, 102), Load(0, 102)),
            Load(7, 408),
            Load(0, 76),
        ),
        (NANO, (613, 3964), 0, (Load(2, 102), Load(1, 102), Load(0, 102), Load(0, 102)), Load(0, None), Load(0, None)),
        (XAVIER, (1545, 31919), 2, (Load(0, 1190), Load(1, 1190), None, None), Load(0, 1331), Load(0, 114)),
        (AGX_ORIN, (1205, 30623), 0, (Load(0, 729), Load(0, 730), Load(1, 729)), Load(0, 204), Load(0, 114)),
        (ORIN_NANO, (6185, 7620), 851, (Load(15, 729), Load(11, 729), None), Load(43, 2133), Load(63, 621)),
        (LATELY, (None, None), None, (), None, Load(12, None)),
        (THOR, (86905, 125772), None, (Load(12, 972), Load(10, 972), None, Load(33, 1890)), None, None),
    ],
    ids=["tx1", "tx1-4", "nano", "xavier", "agx-orin", "orin-nano", "lately", "thor"],
)
def test_loads_in_tegrastats(
    line: str,
    ram_mb: tuple[int | None, int | None],
    swap_mb: int | None,
    cores: tuple[Load | None, ...],
    memory: Load | None,
    gpu: Load | None,
) -> None:
    told = parse_tegrastats(line)
    assert ((told.ram_used_mb, told.ram_total_mb), told.swap_used_mb) == (ram_mb, swap_mb)
    assert (told.cores, told.memory, told.gpu) == (cores, memory, gpu)


def test_two_clusters_of_an_orins_gpu_share_a_load() -> None:
    assert parse_tegrastats("GR3D_FREQ 12%@[318,316] NVENC off").gpu == Load(12, 318)


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (TX1, {}),
        (TX1_JETPACK_4, {"VDD_IN": 2532, "VDD_CPU": 76, "VDD_GPU": 19}),
        (NANO, {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123}),
        (XAVIER, {"GPU": 467, "CPU": 467, "SOC": 1245, "CV": 0, "VDDRQ": 311, "SYS5V": 2768}),
        ("GPU 120/100 CPU 468/450 SYS5V 1458/1400", {"GPU": 120, "CPU": 468, "SYS5V": 1458}),
        # A sensor's error, and channels that are not connected.
        (AGX_ORIN, {"VDD_GPU_SOC": 4788, "VDD_CPU_CV": -398, "VIN_SYS_5V0": 3842, "VDDQ_VDD2_1V8AO": 707}),
        (ORIN_NANO, {"VDD_IN": 12479, "VDD_CPU_GPU_CV": 4667, "VDD_SOC": 2817}),
        ("VDD_IN 5000mW/4800mW", {"VDD_IN": 5000}),
        ("VDD_IN 5000/4800", {"VDD_IN": 5000}),
        (LATELY, {"VDD_IN": 4548, "VDD_SOC": 1489}),
        (THOR, {"VDD_GPU": 3561, "VDD_CPU_SOC_MSS": 7910, "VIN_SYS_5V0": 7620, "VIN": 26686}),
        ("VDD_IN 5000mW/48", {"VDD_IN": 5000}),
        ("VDD_IN 5000mW/", {}),
        ("VDD_IN mW/4800mW VDD_SOC 5", {}),
    ],
)
def test_rails_in_tegrastats(line: str, rails: dict[str, int]) -> None:
    assert parse_tegrastats(line).rails_mw == rails


def test_temperatures_in_tegrastats() -> None:
    assert parse_tegrastats(NANO).temperatures_c == {
        "PLL": 39.0, "CPU": 40.5, "PMIC": 100.0, "GPU": 41.0, "AO": 46.0, "thermal": 41.0,
    }  # fmt: skip
    assert parse_tegrastats(AGX_ORIN).temperatures_c == {"CPU": 43.5, "Tdiode": 32.5, "SOC2": 40.062}
    assert parse_tegrastats(LATELY).temperatures_c == {"cpu": 49.843, "tj": 50.875}
    assert parse_tegrastats("Tdiode@N.NC cpu@4x.5C gpu@-5C gpu2@5").temperatures_c == {"gpu": -5.0}


@pytest.mark.parametrize(
    ("told", "mode"),
    [
        ("NV Power Mode: MAXP_CORE_ARM\n3\n", PowerMode("MAXP_CORE_ARM", 3)),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_DESKTOP\n7\nNVPM ERROR: Error opening /sys/x: 13\n", PowerMode("MODE_15W_DESKTOP", 7)),
        ("NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: MODE_15W_6CORE\n2\n"
         "NVPM VERB: PARAM CPU_ONLINE: ARG CORE_0: REAL_VAL: 1 CONF_VAL: 1\n", PowerMode("MODE_15W_6CORE", 2)),
        ("NV Power Mode: MAXN_SUPER\n2\n", PowerMode("MAXN_SUPER", 2)),
        ("NV Power Mode: 15W", PowerMode("15W", None)),
        ("NV Power Mode:\n", None),
        ("NVPM ERROR: needs root\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_power_modes(told: str, mode: PowerMode | None) -> None:
    assert parse_power_mode(told) == mode


CLOCKS_NANO = """SOC family:tegra210  Machine:NVIDIA Jetson Nano Developer Kit
Online CPUs: 0-1
CPU Cluster Switching: Disabled
cpu0: Online=1 Governor=schedutil MinFreq=102000 MaxFreq=1428000 CurrentFreq=1036800 IdleStates: WFI=1 c7=1 
cpu2: Online=0 Governor=schedutil MinFreq=921600 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=1 c7=1 
GPU MinFreq=76800000 MaxFreq=921600000 CurrentFreq=230400000
EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=0
Fan: speed=0
NV Power Mode: MAXN
"""  # noqa: W291 - as printed
CLOCKS_ORIN = """SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=729600 IdleStates: WFI=1 c7=1
cpu1:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=13
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
"""
CLOCKS_TX1 = "cpu0: Gonvernor=interactive MinFreq=1734000 MaxFreq=1734000 CurrentFreq=1734000\n"


def test_clocks() -> None:
    assert parse_clocks(CLOCKS_NANO) == {
        "cpu0": Clock(102.0, 1428.0, 1036.8),
        "GPU": Clock(76.8, 921.6, 230.4),
        "EMC": Clock(204.0, 1600.0, 1600.0),
    }
    assert parse_clocks(CLOCKS_ORIN) == {
        "cpu0": Clock(729.6, 1344.0, 729.6),
        "GPU": Clock(306.0, 918.0, 306.0),
        "EMC": Clock(204.0, 3199.0, 2133.0),
    }
    assert parse_clocks(CLOCKS_TX1) == {"cpu0": Clock(1734.0, 1734.0, 1734.0)}
    assert parse_clocks("Error! Please run as root") == {}


@pytest.mark.parametrize(
    ("model", "release", "is_jetson"),
    [
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit\x00", "", True),
        (
            "NVIDIA Orin Nano Developer Kit\x00",
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n",
            True,
        ),
        ("Raspberry Pi 4 Model B Rev 1.4\x00", "", False),
    ],
)
def test_which_boards_are_jetsons(tmp_path: Path, model: str, release: str, is_jetson: bool) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text(model)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(release)
    assert jetson.jetson_model(tmp_path) == (model.strip("\x00") if is_jetson else None)


@pytest.mark.parametrize(
    ("told", "release"),
    [
        (
            "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 2022",
            "32.7.1",
        ),
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025",
            "36.4.3",
        ),
        ("# R35 (release)", None),
        ("", None),
    ],
)
def test_l4t_release(tmp_path: Path, told: str, release: str | None) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(told)
    assert jetson.l4t_release(tmp_path) == release


def test_rails_of_an_orin_and_of_a_nano(tmp_path: Path) -> None:
    """JetPack 5 and later tell mV and mA, with sums in channels from the fourth on; JetPack 4 mW."""
    orin = tmp_path / "orin/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    orin.mkdir(parents=True)
    for name, value in {
        "in1_label": "VDD_IN", "in1_input": "5008", "curr1_input": "1000",
        "in2_label": "VDD_SOC", "in2_input": "5008", "curr2_input": "-40",
        "in3_label": "NC", "in3_input": "0", "curr3_input": "0",
        "in7_label": "sum of shunt voltages", "in7_input": "11280", "curr7_input": "9",
    }.items():  # fmt: skip
        (orin / name).write_text(f"{value}\n")
    rails = jetson.power_rails(tmp_path / "orin")
    assert [rail.name for rail in rails] == ["VDD_IN", "VDD_SOC"]
    assert rails[0].watts() == pytest.approx(5.008)
    assert rails[1].watts() == pytest.approx(-0.20032)
    (orin / "curr1_input").write_text("busy")
    assert rails[0].watts() is None
    assert [rail.name for rail in jetson.power_rails(tmp_path / "orin")] == ["VDD_SOC"]

    nano = tmp_path / "nano/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    nano.mkdir(parents=True)
    for name, value in {"rail_name_0": "POM_5V_IN", "in_power0_input": "1895", "rail_name_1": "POM_5V_GPU"}.items():
        (nano / name).write_text(f"{value}\n")
    [rail] = jetson.power_rails(tmp_path / "nano")
    assert (rail.name, rail.watts()) == ("POM_5V_IN", pytest.approx(1.895))


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="starts scripts")
def test_the_tools_are_asked_and_may_be_missing_or_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (jetson.power_mode(), jetson.clocks()) == (None, {})
    tool(tmp_path, "nvpmodel", '[ "$1" = -q ] && printf "NV Power Mode: 25W\\n1\\n"')
    tool(tmp_path, "jetson_clocks", 'echo "GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=612000000"')
    assert jetson.power_mode() == PowerMode("25W", 1)
    assert jetson.clocks() == {"GPU": Clock(306.0, 918.0, 612.0)}
    tool(tmp_path, "jetson_clocks", 'echo "Error: Run as root"; exit 1')
    assert jetson.clocks() == {}


fragments = st.lists(
    st.sampled_from([*TX1.split(), *XAVIER.split(), *ORIN_NANO.split(), *CLOCKS_NANO.split(), "NV Power Mode:", "\n"])
    | st.text(max_size=20)
    | st.from_regex(r"\A[A-Z]{2} [0-9]{1,5000}/[0-9]{1,20}\Z"),
    max_size=30,
)


@given(words=fragments, cut=st.integers(min_value=0, max_value=400))
def test_no_line_stops_a_parser(words: list[str], cut: int) -> None:
    for line in (" ".join(words), XAVIER[:cut] + " ".join(words)):
        told = parse_tegrastats(line)
        assert all(-200 < value < 10_000 for value in told.temperatures_c.values())
        assert all(name and name != "NC" for name in told.rails_mw)
        assert all(clock.max_mhz >= 0 for clock in parse_clocks(line).values())
        mode = parse_power_mode(line)
        assert mode is None or mode.name
