"""Where things lie on the device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["Request", "link", "release_of", "root_of", "text_of"]

Request = dict[str, Any]


def text_of(path: Path) -> str:
    """What a file says; nothing if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\x00\n ")
    except OSError:
        return ""


def root_of(request: Request) -> Path:
    """The folder on the device under which everything lies."""
    if request["root"] is not None:
        return Path(request["root"]).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "edgewright"


def release_of(request: Request) -> Path:
    """The folder of the release that is asked about."""
    return root_of(request) / "releases" / str(request["name"]) / str(request["release"])


def link(target: Path, link: Path) -> None:
    """Make or exchange a symbolic link in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)
