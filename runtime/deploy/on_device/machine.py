"""What kind of machine this is."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from edgewright.runtime.deploy.on_device.places import Request, root_of, text_of
from edgewright.runtime.deploy.on_device.programs import tried

__all__ = ["probe"]


def probe(request: Request) -> dict[str, Any]:
    """What kind of machine this is. Writes nothing."""
    root = root_of(request)
    there = root
    while not there.exists():
        there = there.parent
    tensorrt = tried(sys.executable, "-c", "import tensorrt; print(tensorrt.__version__)")
    release = dict(line.partition("=")[::2] for line in text_of(Path("/etc/os-release")).splitlines() if "=" in line)
    return {
        "root": str(root),
        "model": text_of(Path("/proc/device-tree/model")),
        "l4t": text_of(Path("/etc/nv_tegra_release")),
        "machine": platform.machine(),
        "system": release.get("PRETTY_NAME", platform.system()).strip('"'),
        "free_mb": shutil.disk_usage(there).free // 1_000_000,
        "writable": os.access(there, os.W_OK),
        "python": sys.executable,
        "python_version": platform.python_version(),
        "venv": tried(sys.executable, "-c", "import ensurepip, venv") is not None,
        "tensorrt": tensorrt,
        "user_units": tried("systemctl", "--user", "show-environment") is not None,
    }
