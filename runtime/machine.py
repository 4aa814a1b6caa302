"""What kind of CPU this is: the facts that decide which artefact is fastest here."""

from __future__ import annotations

import platform
import re
from pathlib import Path

__all__ = ["CPU_FEATURES", "cpu_name_and_features", "emulation", "l4t_release_in"]

CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
)
"""Of what a CPU tells of itself, that which decides how fast INT8 and bf16 are."""


_X86 = ("x86_64", "amd64", "i386", "i486", "i586", "i686")
_ARM = ("aarch64", "arm")
# The MIDR of QEMU's processor "max", which is none of ARM's: no implementer, and the letter Q.
_QEMU_MAX = (0x00, 0x51)


def cpu_name_and_features(root: Path = Path("/"), machine: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The CPU's or the board's name, and which of :data:`CPU_FEATURES` it has; of an emulated one the name says so.

    Args:
        root: Stands for `/`.
        machine: What this program was made for, as `platform.machine` calls it.
    """
    fields = _cpuinfo(root)
    machine = machine or platform.machine()
    if how := emulation(root, machine):
        # What a host tells of itself is not what its emulator can do.
        return f"{machine}, {how}", () if _is_foreign(fields, machine) else _features(fields)
    model = root / "proc" / "device-tree" / "model"
    # ARM's cpuinfo names no model; the device tree names the board.
    board = model.read_text(errors="replace").strip("\x00\n ") if model.is_file() else ""
    return fields.get("model name") or board or platform.processor() or machine, _features(fields)


def emulation(root: Path = Path("/"), machine: str | None = None) -> str | None:
    """How this CPU is emulated, in words, or None where nothing says that it is.

    What emulates single programs (qemu-user, Rosetta) often passes on the host's own cpuinfo, which then tells of a
    processor that could not run this program. QEMU's processors of its own have names that no chip has. An emulated
    machine that claims to be a chip of the market is not recognised.

    Args:
        root: Stands for `/`.
        machine: What this program was made for, as `platform.machine` calls it.
    """
    fields = _cpuinfo(root)
    if _is_foreign(fields, machine or platform.machine()):
        return f"emulated on {fields.get('model name') or 'another kind of processor'}"
    midr = (_number(fields.get("CPU implementer", "")), _number(fields.get("CPU part", "")))
    if midr == _QEMU_MAX or fields.get("model name", "").startswith("QEMU TCG CPU"):
        return "emulated by QEMU"
    return None


def l4t_release_in(text: str) -> str | None:
    """NVIDIA's release of Linux in the text of `/etc/nv_tegra_release`, like "36.4.3"; None where it names none."""
    found = re.search(r"R([0-9]{1,3}) \(release\), REVISION: ([0-9.]{1,12})", text)
    return f"{found[1]}.{found[2]}" if found else None


def _cpuinfo(root: Path) -> dict[str, str]:
    """What /proc/cpuinfo says of the first core."""
    cpuinfo = root / "proc" / "cpuinfo"
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    return fields


def _is_foreign(fields: dict[str, str], machine: str) -> bool:
    machine = machine.lower()
    # Each kernel writes these for its own kind of processor only.
    told_arm, told_x86 = "CPU implementer" in fields, "vendor_id" in fields and "flags" in fields
    return (machine.startswith(_ARM) and told_x86) or (machine in _X86 and told_arm)


def _features(fields: dict[str, str]) -> tuple[str, ...]:
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return tuple(flag for flag in CPU_FEATURES if flag in flags)


def _number(word: str) -> int | None:
    try:
        return int(word, 16)
    except ValueError:
        return None
