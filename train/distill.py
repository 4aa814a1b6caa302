"""A student that also learns what a teacher of other classes says about the same view of the same picture.

Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), with the same crop for both as in Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent" (2022). Teacher and student have different classes, so
the student gets a second linear head for the teacher's, which is thrown away afterwards. The teacher never runs in the
loop: its logits are computed once per cached view.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of
from edgewright.train.data.loading import Renderer
from edgewright.train.features import ActivationCache, compile_frozen

__all__ = ["TaughtHead", "teacher_logits"]

TEMPERATURE = 2.0


class _Rescaled(nn.Module):
    """Shows a network pictures of another size: the student's pixels, enlarged (or shrunk) to the teacher's size."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = functional.interpolate(
            pixels.permute(0, 3, 1, 2).float(), size=(self.size, self.size), mode="bilinear"
        )
        output: torch.Tensor = self.network(images.permute(0, 2, 3, 1))
        return output


def teacher_logits(
    teacher: nn.Module, classes: int, preprocess: Preprocess, renderer: Renderer, views: list[int], folder: Path
) -> ActivationCache:
    """What the teacher says, for every sample and view: float16, axes [view, sample, class].

    `preprocess` gives the teacher's input size and statistics; the pixels are those the student gets, rescaled.
    """
    network: nn.Module = Network(teacher, preprocess).eval()
    if preprocess.crop != renderer.spec.crop:
        network = _Rescaled(network, preprocess.crop)
    compiled = compile_frozen(network, renderer.spec.crop)
    cache = ActivationCache((classes,), len(renderer.samples), len(views), np.float16, folder)
    return cache.fill(compiled, renderer, views, "teacher's logits")


class TaughtHead(nn.Module):
    """The student's second head, and the loss that pulls it to the teacher."""

    def __init__(self, cache: ActivationCache, network: Network) -> None:
        super().__init__()
        self._cache = cache
        _, head = head_of(network)
        self.linear = nn.Linear(head.in_features, cache.values.shape[-1])
        self._features: torch.Tensor | None = None
        head.register_forward_pre_hook(self._remember)

    def _remember(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._features = inputs[0]

    def loss(self, row: int, indices: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence at `TEMPERATURE` for the batch that the network has just seen.

        `row` is the cache's view that the batch shows, `indices` (N) are its samples.
        """
        assert self._features is not None
        taught = torch.from_numpy(self._cache.values[row, indices.cpu().numpy()].astype(np.float32))
        ours = functional.log_softmax(self.linear(self._features) / TEMPERATURE, dim=1)
        theirs = functional.log_softmax(taught.to(ours.device) / TEMPERATURE, dim=1)
        return TEMPERATURE**2 * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")

    def close(self) -> None:
        """Delete the cached logits."""
        self._cache.close()
