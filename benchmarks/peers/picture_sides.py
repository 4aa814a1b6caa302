"""Ways from a picture's file to its label, each in a process of its own: what `image_to_label` lets take turns.

The request names the way, the pictures and how long a turn is. A turn labels pictures one after the other, the first few
uncounted; the result holds the milliseconds of every picture.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

from edgewright.benchmarks.peers.sides import Turns, work_in_turns
from edgewright.runtime.timing import burst_latencies_ms

__all__ = ["label_in_turns"]

Label = Callable[[str], object]


def _edgewright(request: dict[str, Any]) -> Label:
    from edgewright.runtime.loading import load

    return load(request["bundle"], artefact=request["artefact"])


def _eager_torch(request: dict[str, Any]) -> Label:
    """As torchvision's documentation does it: the preset's transforms, the model, softmax. Weights do not matter here."""
    import torch
    from PIL import Image
    from torchvision import models
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    model = models.get_model(request["backbone"], weights=None, num_classes=request["classes"]).eval()
    spec = request["preprocess"]
    transforms = Compose(
        [Resize(spec["resize"]), CenterCrop(spec["crop"]), ToTensor(), Normalize(spec["mean"], spec["std"])]
    )

    def label(path: str) -> int:
        with torch.inference_mode():
            batch = transforms(Image.open(path).convert("RGB"))[None]
            return int(model(batch).softmax(1).argmax())

    return label


_WAYS: dict[str, Callable[[dict[str, Any]], Label]] = {"edgewright": _edgewright, "torch": _eager_torch}


def label_in_turns(request: dict[str, Any], turns: Turns) -> dict[str, Any]:
    """The work of one side: `rounds` turns of `seconds` each."""
    label = _WAYS[request["way"]](request)
    pictures = cycle(request["pictures"])
    samples: list[float] = []
    for _ in range(request["rounds"]):
        samples += burst_latencies_ms(lambda: label(next(pictures)), request["seconds"])
        turns.hand_over()
    return {"ms": samples}


if __name__ == "__main__":
    work_in_turns(label_in_turns)
