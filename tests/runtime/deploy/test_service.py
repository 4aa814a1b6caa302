"""The systemd unit, as systemd itself reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgewright.runtime.deploy.service import Service, health_of, unit_text

ROOT = "/home/user/.local/share/edgewright"


def test_unit_runs_what_is_current() -> None:
    unit = unit_text(Service(port=9000), ROOT, "flowers")
    assert f'ExecStart="{ROOT}/current/flowers/environment/bin/edgewright" "serve"' in unit
    assert '"--port" "9000"' in unit


@pytest.mark.parametrize(
    ("host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.7", "10.0.0.7")],  # noqa: S104
)
def test_unit_says_where_it_answers(host: str, asked: str) -> None:
    service = Service(host, 8001)
    assert service.health == f"http://{asked}:8001/v2/health/ready"
    assert health_of(unit_text(service, ROOT, "flowers")) == service.health


def test_other_units_say_nothing() -> None:
    assert health_of("[Service]\nExecStart=/bin/true\n") is None


@pytest.mark.parametrize("root", [ROOT, "/srv/with blank/50%/$HOME"])
def test_systemd_understands_it(tmp_path: Path, root: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    file = tmp_path / "edgewright-flowers.service"
    # Only what is executable passes; the rest is as it would be.
    file.write_text(unit_text(Service(), root, "flowers"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if file.name in line]
    program = f"{root}/current/flowers/environment/bin/edgewright"
    assert said == [f"{file.name}: Command {program} is not executable: No such file or directory"], done.stderr
