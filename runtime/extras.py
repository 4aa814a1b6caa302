"""Optional parts: is what they need installed?"""

from __future__ import annotations

from importlib.util import find_spec

from edgewright.runtime.errors import MissingExtraError

__all__ = ["require"]


def require(extra: str, *packages: str) -> None:
    """Look for `packages` without importing them.

    Raises:
        MissingExtraError: one is not installed; names the extra that brings it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)
