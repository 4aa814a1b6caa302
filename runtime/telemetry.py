"""Nothing that edgewright runs reports about its users."""

from __future__ import annotations

import sys

__all__ = ["forbid_telemetry"]


def forbid_telemetry() -> None:
    """Keep OpenVINO's converter and NNCF from sending usage statistics.

    Both import `openvino_telemetry` if they can and do without it otherwise; a None in `sys.modules` is Python's way to
    say that they cannot. Without a network each attempt to send would also cost seconds.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
