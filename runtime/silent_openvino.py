"""OpenVINO, which here tells nobody that it is used. The one place that imports it: others take `ov` from here."""

from __future__ import annotations

import sys

__all__ = ["ov"]


def _forbid_telemetry() -> None:
    """Keep OpenVINO's converter and NNCF from sending usage statistics.

    OpenVINO imports `openvino_telemetry` with itself, and does without it where it cannot; a None in `sys.modules` is
    Python's way to say so. A program that had imported OpenVINO, or NNCF, before edgewright has it at hand already: there
    it is exchanged for what OpenVINO itself takes where it is missing. Each attempt to send would fork the process, too.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    if "openvino.tools.ovc" not in sys.modules:
        return
    from openvino.tools.ovc import telemetry_stub

    for name, module in list(sys.modules.items()):
        if name.startswith("openvino.tools.ovc") and hasattr(module, "tm"):
            setattr(module, "tm", telemetry_stub)  # noqa: B010 - a module has no such attribute for mypy
    if (wrapper := sys.modules.get("nncf.telemetry.wrapper")) is not None:
        wrapper.telemetry._impl = telemetry_stub.Telemetry()


_forbid_telemetry()
import openvino as ov  # noqa: E402
