"""Where this device keeps what it compiled itself: engines and timings, never part of a bundle."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "device_cache"]

CACHE_VARIABLE = "EDGEWRIGHT_CACHE"


def device_cache(part: str, root: Path | None = None) -> Path:
    """The folder for `part` ("tensorrt", "openvino"): below `root`, else `$EDGEWRIGHT_CACHE`, else the user's cache folder.

    The user's is `$XDG_CACHE_HOME/edgewright`, or `~/.cache/edgewright` where that is not set. A relative
    `XDG_CACHE_HOME` counts as not set, as its specification demands. The folder need not exist.
    """
    if root is not None:
        return root.absolute() / part
    own = os.environ.get(CACHE_VARIABLE, "")
    if own:
        return Path(own).absolute() / part
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache") / "edgewright" / part
