"""What client and server have in common: the token, and which addresses never leave this machine."""

from __future__ import annotations

__all__ = ["TOKEN_VARIABLE", "is_loopback"]

TOKEN_VARIABLE = "EDGEWRIGHT_TOKEN"  # noqa: S105 - the name of a variable


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host, or listens there, stays on this machine."""
    return host in ("localhost", "::1") or host.startswith("127.")
