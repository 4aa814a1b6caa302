"""The unit that serves a release."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from edgewright.runtime.deploy.on_device.places import Request
from edgewright.runtime.deploy.on_device.programs import call, tried
from edgewright.runtime.files import atomic_write

__all__ = ["serve", "unit_path"]

_FAILED_STARTS = 2
"""After so many restarts a service is given up: it ends again and again."""


def unit_path(name: str) -> Path:
    """Of a unit of this user."""
    return Path.home() / ".config" / "systemd" / "user" / f"edgewright-{name}.service"


def serve(request: Request) -> dict[str, Any]:
    """Write the unit, (re)start it, and wait until it says that it is ready."""
    path = unit_path(request["name"])
    atomic_write(path, request["unit"])
    call(["systemctl", "--user", "daemon-reload"])
    # Without it, services end when their user logs out. Not every machine allows it to everybody.
    lingering = tried("loginctl", "enable-linger") is not None
    call(["systemctl", "--user", "enable", "--quiet", path.name])
    call(["systemctl", "--user", "stop", path.name])
    # What failed before counts no more, nor does how often it was started.
    tried("systemctl", "--user", "reset-failed", path.name)
    call(["systemctl", "--user", "start", path.name])
    ready = _becomes_ready(request["health"], path.name, float(request["wait_s"]))
    return {"ready": ready, "lingering": lingering}


def _becomes_ready(url: str, unit: str, wait_s: float) -> bool:
    # Not by a proxy that the environment has for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + wait_s
    restarts = ("systemctl", "--user", "show", "--property", "NRestarts", "--value", unit)
    while time.monotonic() < until and int(tried(*restarts) or 0) < _FAILED_STARTS:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            opener.open(url, timeout=2) as answer,
        ):
            if answer.status == 200:
                return True
        time.sleep(0.25)
    return False
