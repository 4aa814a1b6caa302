"""A systemd unit that keeps a deployed bundle served: started with the machine, restarted when it fails, within limits.

A unit of the user, so that nobody needs to be root. https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["Service", "health_of", "unit_text"]


@dataclass(frozen=True, slots=True)
class Service:
    """How a bundle is served.

    Attributes:
        host: Address to listen at.
        port: TCP port.
        memory_mb: With more, it is restarted. In MB of 10^6 bytes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    memory_mb: int = 1000

    @property
    def health(self) -> str:
        """Where it says that it is ready, asked on the device itself."""
        # Who listens at every address is asked at one.
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{here}]' if ':' in here else here}:{self.port}/v2/health/ready"


_READY_WHEN = "# Ready when this answers: "


def health_of(unit: str) -> str | None:
    """What a unit that :func:`unit_text` wrote says of itself; None of another."""
    found = re.search(rf"^{re.escape(_READY_WHEN)}(http://\S+)$", unit, re.MULTILINE)
    return found[1] if found else None


def _program(path: str) -> str:
    """The first word of ExecStart, in which `%` means something to systemd, and `$` does not."""
    return '"' + path.replace("%", "%%") + '"'


def _word(text: str) -> str:
    """A further word: `%` and `$` mean something, blanks divide."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def unit_text(service: Service, root: str, name: str) -> str:
    """The unit. It names `current`, so that what is deployed later is served after a restart, without another unit."""
    current = PurePosixPath(root) / "current" / name
    words = ("serve", str(current / "bundle"), "--host", service.host, "--port", str(service.port))
    command = " ".join((_program(f"{current}/environment/bin/edgewright"), *map(_word, words)))
    return f"""\
# Written by `edgewright deploy --service`, which overwrites it.
{_READY_WHEN}{service.health}
[Unit]
Description=edgewright serves {name}
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=simple
ExecStart={command}
Restart=on-failure
RestartSec=3
# The server finishes what it accepted; its own limit for that is 30 s.
TimeoutStopSec=45
MemoryMax={service.memory_mb}M
TasksMax=256
NoNewPrivileges=yes
UMask=0077

[Install]
WantedBy=default.target
"""
