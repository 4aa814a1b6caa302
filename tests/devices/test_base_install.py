"""The wheel's base install in a fresh environment of this Python: small enough, and enough to verify and to predict.

The same for other Pythons and processors is `base_install.py` beside this file, which needs the package index.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgewright.export.exporter import Export

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository, not an unpacked archive")


@pytest.mark.slow
def test_base_install_is_small_and_is_all_that_a_device_needs(digits_export: Export, tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("needs uv, which is not installed here")
    script, out = ROOT / "tests" / "devices" / "base_install.py", tmp_path / "install.json"
    command = [sys.executable, str(script), str(digits_export.bundle.path), "--python", sys.executable]
    # From uv's cache, where making this environment has put everything; else from the index.
    for offline in ("1", "0"):
        environment = {**os.environ, "UV_OFFLINE": offline}
        done = subprocess.run(
            [*command, "--only-run", "--out", str(out)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = json.loads(out.read_text())["runs"]
    assert run["verified"] is True
    assert run["label"] is not None
    assert run["problems"] == []
    # As little as this would be an environment that lacks an engine.
    assert run["base_mb"] > 80
