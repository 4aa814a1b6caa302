"""Training steps per second with PyTorch's own depthwise weight gradient and with ours, in turn.

python -m edgewright.benchmarks.peers.depthwise [--json]
"""

from __future__ import annotations

import copy
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional

from edgewright.benchmarks.device import device_facts
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.timing import interleaved_latencies_ms
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.depthwise import speed_up_depthwise

_CASES = (
    ("mobilenet_v3_small", 48, 128),
    ("mobilenet_v3_small", 64, 128),
    ("mobilenet_v3_small", 224, 32),
    ("mobilenet_v2", 64, 128),
    ("mobilenet_v2", 224, 32),
)


def _step(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    model.zero_grad()
    functional.cross_entropy(model(pixels), labels).backward()  # type: ignore[no-untyped-call]


def main(json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False) -> None:
    """Measure forward and backward of a batch."""
    torch.set_num_threads(available_cores())
    rows: list[dict[str, Any]] = []
    for backbone, size, batch in _CASES:
        theirs = build_backbone(backbone, classes=10).train()
        ours = copy.deepcopy(theirs)
        speed_up_depthwise(ours)
        pixels = torch.randn(batch, size, size, 3).permute(0, 3, 1, 2)
        labels = torch.randint(0, 10, (batch,))
        samples = interleaved_latencies_ms(
            {
                "theirs": lambda m=theirs, x=pixels, y=labels: _step(m, x, y),  # type: ignore[misc]
                "ours": lambda m=ours, x=pixels, y=labels: _step(m, x, y),  # type: ignore[misc]
            },
            seconds=0.1,
            rounds=3,
        )
        speed = {name: 1e3 * batch / float(np.median(values)) for name, values in samples.items()}
        rows.append(
            {
                "backbone": backbone,
                "imgsz": size,
                "torch_images_per_s": speed["theirs"],
                "ours_images_per_s": speed["ours"],
                "ratio": speed["ours"] / speed["theirs"],
            }
        )
    if json:
        emit_json({"cpu": device_facts().cpu, "cases": rows})
    print_table(
        "forward and backward, images/s",
        ("backbone", "px", "PyTorch's gradient", "ours", "ratio"),
        [
            (
                row["backbone"],
                row["imgsz"],
                f"{row['torch_images_per_s']:.0f}",
                f"{row['ours_images_per_s']:.0f}",
                f"{row['ratio']:.2f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    typer.run(main)
