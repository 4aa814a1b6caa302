"""Files that come, releases made of them, and which of them counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from edgewright.runtime.deploy.on_device.places import Request, link, release_of, root_of, text_of
from edgewright.runtime.deploy.on_device.service import unit_path
from edgewright.runtime.errors import DeployError
from edgewright.runtime.files import sha256_of_file

__all__ = ["place", "prepare", "receive", "state", "switch", "tidy"]


def state(request: Request) -> dict[str, Any]:
    """Which files are here and how much of those that are not, and how far this release has come. Writes nothing."""
    root, release = root_of(request), release_of(request)
    missing, parts = [], {}
    for sha256 in request["files"]:
        kept, part = root / "files" / sha256, root / "incoming" / sha256
        if not _is_file_of(kept, sha256):
            missing.append(sha256)
            if part.is_file():
                parts[sha256] = part.stat().st_size
    deployed = [
        {"name": each.name, "release": Path(os.path.realpath(each)).name}
        for each in sorted((root / "current").glob("*"))
        if _is_file_of(each / "bundle" / "manifest.json", request["manifest"])
    ]
    return {
        "missing": missing,
        "parts": parts,
        "environment": (root / "environments" / request["environment"] / "ready.json").is_file(),
        "placed": not missing and _is_whole(root, release / "bundle", request["bundle"]),
        "reports": {path.stem: json.loads(path.read_text()) for path in sorted((release / "report").glob("*.json"))},
        "current": _current(request) == release.name,
        "deployed": deployed,
        "unit": text_of(unit_path(request["name"])),
    }


def _is_file_of(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256


def _is_whole(root: Path, bundle: Path, files: dict[str, str]) -> bool:
    """Whether these files lie there and no others, each checked just now where it is kept."""
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if not path.is_dir()}
    return there == set(files) and all(
        (bundle / name).samefile(root / "files" / sha256) for name, sha256 in files.items()
    )


def prepare(request: Request) -> dict[str, Any]:
    """Make room for what will come: keep what has come whole, throw away what nobody goes on sending.

    Returns:
        What is still missing, and how much of it is here.
    """
    root = root_of(request)
    (root / "incoming").mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = request["files"]
    whole = []
    for part in (root / "incoming").iterdir():
        size = sizes.get(part.name)
        if size is None or part.stat().st_size > size:
            part.unlink()
        elif part.stat().st_size == size:
            whole.append(part.name)
    kept = set(whole) - set(_accept(root, whole))
    missing = [sha256 for sha256 in request["missing"] if sha256 not in kept]
    return {"missing": missing, "parts": [sha256 for sha256 in missing if (root / "incoming" / sha256).is_file()]}


def receive(request: Request) -> dict[str, Any]:
    """Check what has come; what is wrong is thrown away, to be sent again."""
    return {"wrong": _accept(root_of(request), request["received"])}


def _accept(root: Path, names: list[str]) -> list[str]:
    """Keep the files whose checksum is right; returns the others, which are gone."""
    wrong = []
    (root / "files").mkdir(parents=True, exist_ok=True)
    for sha256 in names:
        part = root / "incoming" / sha256
        if _is_file_of(part, sha256):
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            # Bundles are made of links to it: what changes one would change all.
            part.chmod(0o444)
            part.replace(root / "files" / sha256)
        else:
            part.unlink(missing_ok=True)
            wrong.append(sha256)
    return wrong


def place(request: Request) -> dict[str, Any]:
    """Lay the bundle out: links to files that were checked, under a name that is right only when all are there."""
    root, release = root_of(request), release_of(request)
    release.mkdir(parents=True, exist_ok=True)
    for name in (".bundle.new", "bundle", "report"):
        shutil.rmtree(release / name, ignore_errors=True)
    for name, sha256 in request["bundle"].items():
        path = release / ".bundle.new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(root / "files" / sha256, path)
    (release / ".bundle.new").replace(release / "bundle")
    link(root / "environments" / request["environment"], release / "environment")
    return {}


def switch(request: Request) -> dict[str, Any]:
    """From now on this release is the one that counts; tells which it was before.

    Raises:
        DeployError: it is not there, as another deployment of the same name has been faster and tidied up.
    """
    release, before = release_of(request), _current(request)
    if not ((release / "bundle").is_dir() and (release / "environment" / "ready.json").is_file()):
        raise DeployError(f"'{release}' is gone: another deployment has removed it. Run the command again.")
    link(release, _link_of(request))
    return {"before": before}


def _link_of(request: Request) -> Path:
    return root_of(request) / "current" / str(request["name"])


def _current(request: Request) -> str | None:
    """The release that counts now."""
    path = _link_of(request)
    return Path(os.path.realpath(path)).name if path.is_symlink() else None


def tidy(request: Request) -> dict[str, Any]:
    """Throw away what no current release needs, but for the one before."""
    root, releases = root_of(request), root_of(request) / "releases" / request["name"]
    # Since this release was switched to, another deployment may have switched to its own.
    keep = {request["release"], request["before"], _current(request)}
    for release in releases.iterdir():
        if release.name not in keep:
            shutil.rmtree(release, ignore_errors=True)
    used = {os.path.realpath(each) for each in root.glob("releases/*/*/environment")}
    for environment in (root / "environments").iterdir():
        if os.path.realpath(environment) not in used:
            shutil.rmtree(environment, ignore_errors=True)
    for kept in (root / "files").iterdir():
        if kept.stat().st_nlink == 1:
            kept.unlink(missing_ok=True)
    return {}
