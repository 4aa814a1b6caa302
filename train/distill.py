"""A student that also learns what its teacher's last features say about the same view of the same picture.

Following Romero et al., "FitNets" (2014), on the penultimate features, with the same crop for both as in Beyer et
al., "Knowledge distillation: A good teacher is patient and consistent" (2022). The teacher never runs in the loop: its
features are computed once per cached view.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of, plan_stages, split_at
from edgewright.train.data.loading import Renderer
from edgewright.train.features import ActivationCache, compile_frozen
from torch import nn
from torch.nn import functional

__all__ = ["FeatureTeacher", "teacher_features"]


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


def teacher_features(
    teacher: nn.Module, preprocess: Preprocess, renderer: Renderer, views: list[int], folder: Path, imgsz: int
) -> ActivationCache:
    """What the teacher's head sees, for every sample and view: float16, axes [view, sample, channel].

    `preprocess` gives the statistics the teacher was trained with; the pixels are those the student gets, rescaled to
    `imgsz`.
    """
    network = Network(teacher, preprocess).eval()
    plan = plan_stages(network, torch.zeros(1, imgsz, imgsz, 3, dtype=torch.uint8))
    frozen, _ = split_at(plan, plan.cuts[-1])
    module = frozen if imgsz == renderer.spec.crop else _Rescaled(frozen, imgsz)
    compiled = compile_frozen(module, renderer.spec.crop)
    cache = ActivationCache(plan.shapes[-1], len(renderer.samples), len(views), np.float16, folder)
    return cache.fill(compiled, renderer, views, "teacher's features")


class FeatureTeacher(nn.Module):
    """The loss that pulls the student's penultimate features, through a linear map, to the teacher's.

    The teacher's features are standardised per channel, so that every channel counts the same.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, cache: ActivationCache, network: Network) -> None:
        super().__init__()
        self._cache = cache
        sample = np.asarray(cache.values[0], dtype=np.float32)
        self.register_buffer("mean", torch.from_numpy(sample.mean(axis=0)))
        self.register_buffer("std", torch.from_numpy(sample.std(axis=0) + 1e-3))
        _, head = head_of(network)
        self.project = nn.Linear(head.in_features, sample.shape[1])
        self._seen: torch.Tensor | None = None
        head.register_forward_pre_hook(self._remember)

    def _remember(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._seen = inputs[0]

    def loss(self, row: int, indices: torch.Tensor) -> torch.Tensor:
        """Mean squared distance for the batch that the network has just seen, shown in the cache's view `row`."""
        assert self._seen is not None
        rows = torch.from_numpy(self._cache.values[row, indices.cpu().numpy()].astype(np.float32))
        target = (rows.to(self.mean.device) - self.mean) / self.std
        return functional.mse_loss(self.project(self._seen), target)
