"""Turn a finished run into the weights that ship with the package.

    python -m edgewright.train.backbones.publish RUN --imgsz 96 --command "edgewright train …"

Writes `train/weights/builtin.safetensors` (float16, without the head, which means nothing to anyone else) and its card,
`builtin.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file, save

from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write, sha256_of
from edgewright.train.backbones.surgery import head_of
from edgewright.train.backbones.weights import BUILTIN_BACKBONE
from edgewright.train.run import read_run

FOLDER = Path(__file__).resolve().parents[1] / "weights"

_LARGEST_BYTES = 5_000_000


def main(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    command: Annotated[str, typer.Option(help="The command that made the run.")],
    source: Annotated[str, typer.Option(help="One line for reports: data and teacher.")],
    imgsz: Annotated[int, typer.Option(help="Input size that suits photographs; the weights' default from now on.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0",
) -> None:
    """Write the weights and their card."""
    opened = read_run(run)
    record = opened.record
    if record.backbone != BUILTIN_BACKBONE:
        raise UsageError(f"'{run}' is a {record.backbone}; the built-in weights are those of {BUILTIN_BACKBONE}.")
    head, _ = head_of(opened.network().backbone)
    state = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in load_file(run / "best.safetensors").items()
        if not name.startswith(f"{head}.")
    }
    data = save(state)
    if len(data) > _LARGEST_BYTES:
        raise UsageError(f"The weights take {len(data):,} bytes; at most {_LARGEST_BYTES:,} ship with the package.")
    preprocess = record.preprocess.model_copy(update={"crop": imgsz, "resize": imgsz})
    card = {
        "backbone": record.backbone,
        "source": source,
        "licence": licence,
        "command": command,
        "trained_at_px": record.preprocess.crop,
        "preprocess": preprocess.model_dump(mode="json"),
        "source_task": {"classes": list(record.classes), "val_top1": record.val_top1, "test_top1": record.test_top1},
        "edgewright": record.edgewright,
        "torch": record.torch,
        "seconds": round(record.seconds),
        "finished_at": record.finished_at,
        "parameters": sum(value.numel() for value in state.values()),
        "sha256": sha256_of(data),
    }
    atomic_write(FOLDER / "builtin.safetensors", data)
    atomic_write(FOLDER / "builtin.json", json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
