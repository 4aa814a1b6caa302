"""Devices by name: `cpu`, `cuda:1`, `gpu`, `auto`, and which of them each engine has on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.runtime.errors import UsageError

__all__ = ["CPU", "KINDS", "Device", "no_such_device", "parse_device"]

KINDS = {
    "cpu": ("onnxruntime", "openvino"),
    "cuda": ("onnxruntime", "tensorrt"),
    "tensorrt": ("onnxruntime",),
    "gpu": ("openvino",),
    "npu": ("openvino",),
    "auto": ("openvino",),
}
"""Which engines a device is of. `cuda` and `tensorrt` are NVIDIA's GPUs, with ONNX Runtime's two providers for them; `gpu`
and `npu` are Intel's, with OpenVINO, which chooses one itself for `auto`."""

_NUMBERED = ("cuda", "tensorrt", "gpu", "npu")
_FORM = re.compile(r"([a-z]+)(?:[:.](\d{1,2}))?")


@dataclass(frozen=True)
class Device:
    """A kind of device, and its number where there are several; None is the first."""

    kind: str
    index: int | None = None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"

    def is_among(self, names: Sequence[str]) -> bool:
        """Whether a machine that has the devices `names` has this one; `gpu` and `gpu:0` are the same."""
        have = {(device.kind, device.index or 0) for device in map(parse_device, names)}
        return (self.kind, self.index or 0) in have


CPU = Device("cpu")


def parse_device(text: str) -> Device:
    """Read `cpu`, `cuda`, `cuda:1`, `gpu.0`, in upper or lower case.

    Raises:
        UsageError: no name of a device.
    """
    found = _FORM.fullmatch(text.strip().lower())
    if found is None or found[1] not in KINDS or (found[2] is not None and found[1] not in _NUMBERED):
        raise UsageError(f"No device is called '{text}'. Expected one of {', '.join(KINDS)}, or for example cuda:1.")
    return Device(found[1], None if found[2] is None else int(found[2]))


def no_such_device(device: str, backend: str, names: Sequence[str]) -> str:
    """Why `backend` cannot run on `device` here: what it has instead, and how to get it where that is known."""
    kind = parse_device(device).kind
    text = f"{backend} has no device '{device}' here. It has: {', '.join(names) or 'none'}."
    if backend not in KINDS[kind]:
        return f"{text} '{kind}' is a device of {' and '.join(KINDS[kind])}."
    if kind in ("cuda", "tensorrt") and backend == "onnxruntime":
        return f"{text} NVIDIA's GPUs need the package onnxruntime-gpu in the place of onnxruntime."
    if kind in ("gpu", "npu"):
        return f"{text} Intel's {kind.upper()} needs its driver installed."
    return text
