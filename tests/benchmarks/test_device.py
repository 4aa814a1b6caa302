"""What machine a figure is of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from edgewright.benchmarks.device import device_facts, nvidia_gpus
from edgewright.runtime.machine import cpu_name_and_features, emulation

# The first core's lines, as these systems write them.
EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 avx2\n"
NEOVERSE = (
    "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"
)
# A virtual machine on Apple's chips names neither maker nor part; it computes in hardware.
APPLE = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x00\nCPU part\t: 0x000\n"
# qemu-aarch64 8.2 and newer, and qemu-system-aarch64 -cpu max.
QEMU_ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x00\nCPU part\t: 0x051\n"
QEMU_X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu avx2\n"
# Under KVM too: nothing is known.
QEMU64 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU Virtual CPU version 2.5+\nflags\t\t: fpu\n"


def test_facts_of_this_machine_are_told() -> None:
    facts = asdict(device_facts())
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert facts["emulated"] == ("emulated" in facts["cpu"])
    assert {"edgewright", "numpy", "onnxruntime", "openvino"} <= set(facts["versions"])


def test_names_of_gpus_are_those_of_the_driver(tmp_path: Path) -> None:
    assert nvidia_gpus(tmp_path) == ()
    for number, model in enumerate(("NVIDIA H200", "NVIDIA RTX A2000")):
        file = tmp_path / "proc" / "driver" / "nvidia" / "gpus" / f"0000:0{number}:00.0" / "information"
        file.parent.mkdir(parents=True)
        file.write_text(f"Model: \t\t {model}\nIRQ:   \t\t 52\nGPU UUID: \t GPU-1\ndamaged\n\0")
    assert nvidia_gpus(tmp_path) == ("NVIDIA H200", "NVIDIA RTX A2000")


def test_board_without_a_model_in_cpuinfo_is_named_by_its_device_tree(tmp_path: Path) -> None:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd42\n")
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert cpu_name_and_features(tmp_path) == ("NVIDIA Jetson Orin Nano Developer Kit", ("asimd", "asimddp", "i8mm"))


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "how", "name", "features"),
    [
        (EPYC, "x86_64", None, "AMD EPYC", ("avx2",)),
        (NEOVERSE, "aarch64", None, None, ("asimd", "asimddp")),
        (APPLE, "aarch64", None, None, ("asimd", "asimddp")),
        (QEMU64, "x86_64", None, "QEMU Virtual CPU version 2.5+", ()),
        # Before 8.2 qemu-aarch64 passes on the host's file, whose flags are not those of what it emulates.
        (EPYC, "aarch64", "emulated on AMD EPYC", "aarch64, emulated on AMD EPYC", ()),
        (EPYC, "armv7l", "emulated on AMD EPYC", "armv7l, emulated on AMD EPYC", ()),
        # Docker with Rosetta on a Mac.
        (APPLE, "x86_64", "emulated on another kind of processor", "x86_64, emulated on another kind of processor", ()),
        (QEMU_ARM, "aarch64", "emulated by QEMU", "aarch64, emulated by QEMU", ("asimd", "asimddp", "i8mm")),
        (QEMU_X86, "x86_64", "emulated by QEMU", "x86_64, emulated by QEMU", ("avx2",)),
        ("", "aarch64", None, None, ()),
        ("CPU implementer\t: \nCPU part\t: damaged\n", "aarch64", None, None, ()),
    ],
)
def test_emulated_processor_is_told_from_a_real_one(
    tmp_path: Path, cpuinfo: str, machine: str, how: str | None, name: str | None, features: tuple[str, ...]
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    assert emulation(tmp_path, machine) == how
    told, has = cpu_name_and_features(tmp_path, machine)
    assert has == features
    # ARM's own file has no name; then it is this machine's.
    assert told == name if name is not None else "emulated" not in told
