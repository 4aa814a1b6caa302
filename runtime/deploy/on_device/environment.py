"""The virtual environment, and the commands that run in it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from edgewright.runtime.deploy.on_device.places import Request, release_of, root_of
from edgewright.runtime.deploy.on_device.programs import call, tried
from edgewright.runtime.errors import DeployError
from edgewright.runtime.files import atomic_write

__all__ = ["install", "run"]


def install(request: Request) -> dict[str, Any]:
    """Make the virtual environment. Without `ready.json` at its end it counts as not there, and is made anew."""
    root = root_of(request)
    folder = root / "environments" / request["environment"]
    (folder / "ready.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = folder / "wheels"
    wheels.mkdir()
    for name, sha256 in request["wheels"].items():
        os.link(root / "files" / sha256, wheels / name)
    system = ["--system-site-packages"] if request["system_packages"] else []
    call([sys.executable, "-m", "venv", *system, str(folder)])
    python = str(folder / "bin" / "python")
    only = ["--no-index", "--find-links", str(wheels)] if request["only_wheels"] else []
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", *only]
    try:
        call([*pip, *(word.replace("{wheels}", str(wheels)) for word in request["requirements"])])
    except DeployError as error:
        advice = (
            "Put what is missing into the folder" if only else "If the device has no internet, give the wheels with"
        )
        raise DeployError(f"{error}. {advice} --wheelhouse.") from None
    listed = tried(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=json")
    packages = {one["name"]: one["version"] for one in json.loads(listed or "[]")}
    atomic_write(
        folder / "ready.json", json.dumps({"python": platform.python_version(), "packages": packages}, indent=2)
    )
    return {"packages": packages}


def run(request: Request) -> dict[str, Any]:
    """Run one of edgewright's own commands, and keep the document that it prints."""
    release = release_of(request)
    edgewright = release / "environment" / "bin" / "edgewright"
    command = [str(edgewright), *(word.replace("{bundle}", str(release / "bundle")) for word in request["command"])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    document = json.loads(done.stdout) if done.stdout.strip() else None
    if done.returncode == 0 and request["keep"]:
        atomic_write(release / "report" / f"{request['step']}.json", json.dumps(document))
    return {"status": done.returncode, "document": document}
