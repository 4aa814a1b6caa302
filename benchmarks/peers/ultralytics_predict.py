"""Ultralytics' `predict` with OpenVINO: a script for an interpreter that has ultralytics, which ours need not have.

It speaks as :mod:`edgewright.benchmarks.peers.sides` says. `do` in the request is what it does:

- "export": build `model`, one of Ultralytics' classifiers ("yolo11n-cls") or a network of torchvision's by its backbone,
  without pretrained weights, which changes no latency, and let Ultralytics export it to OpenVINO in `folder`;
- "label": label `pictures` in turns with the exported model at `path`;
- "first": label one picture, counted from this script's first line.
"""

from __future__ import annotations

import time

_START = time.perf_counter()

import json  # noqa: E402 - what is imported counts
import sys  # noqa: E402
from itertools import cycle  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_SETTLE = 3
# Torchvision's networks are one module to Ultralytics: the width that they give, and how many parts are taken off their end.
_TORCHVISION = {"mobilenet_v2": (1280, 1), "resnet18": (512, 2)}


def _export(request: dict[str, Any]) -> dict[str, Any]:
    from ultralytics import YOLO

    name, folder = request["model"], Path(request["folder"])
    source = f"{name}.yaml"
    if name in _TORCHVISION:
        width, taken_off = _TORCHVISION[name]
        backbone = [-1, 1, "TorchVision", [width, name, None, True, taken_off]]
        path = folder / f"{name}-cls.yaml"
        path.write_text(
            json.dumps({"nc": request["classes"], "backbone": [backbone], "head": [[-1, 1, "Classify", ["nc"]]]})
        )
        source = str(path)
    model = YOLO(source, task="classify")
    model.model.pt_path = model.ckpt_path = str(folder / f"{name}.pt")  # the export goes beside it
    return {"path": str(model.export(format="openvino", imgsz=request["imgsz"]))}


def _label(request: dict[str, Any], stream: Any) -> dict[str, Any]:
    from ultralytics import YOLO

    model, pictures = YOLO(request["path"], task="classify"), cycle(request["pictures"])

    def label() -> None:
        model.predict(next(pictures), imgsz=request["imgsz"], device="cpu", verbose=False)

    samples: list[float] = []
    for turn in range(1, request["rounds"] + 1):
        for _ in range(_SETTLE):
            label()
        end = time.perf_counter() + request["seconds"]
        while time.perf_counter() < end:
            started = time.perf_counter()
            label()
            samples.append(1e3 * (time.perf_counter() - started))
        print(json.dumps({"turn": turn}), file=stream, flush=True)
        if not sys.stdin.readline():
            raise SystemExit("the parent has gone")
    return {"ms": samples}


def _first(request: dict[str, Any]) -> dict[str, Any]:
    import resource

    from ultralytics import YOLO

    YOLO(request["path"], task="classify").predict(
        request["picture"], imgsz=request["imgsz"], device="cpu", verbose=False
    )
    seconds = time.perf_counter() - _START
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Do what the request says."""
    stream, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    do = request["do"]
    result = _label(request, stream) if do == "label" else {"export": _export, "first": _first}[do](request)
    print(json.dumps({"result": result}), file=stream, flush=True)


if __name__ == "__main__":
    main()
