"""Mixed pictures, mixed labels: MixUp and CutMix, as torchvision has them.

Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018); Yun et al., "CutMix" (2019). On cached activations
the same is done to feature maps (Verma et al., "Manifold Mixup", 2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import v2

__all__ = ["Mixer"]


class Mixer:
    """Mixes batches with one of the wanted ways, drawn anew for each batch from torch's random state."""

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        ways: list[Any] = []
        if mixup:
            ways.append(v2.MixUp(alpha=mixup, num_classes=classes))
        if cutmix:
            ways.append(v2.CutMix(alpha=cutmix, num_classes=classes))
        self._ways = ways

    def __str__(self) -> str:
        """The ways, for people; empty if there are none."""
        return " or ".join(f"{type(way).__name__} {way.alpha:g}" for way in self._ways)

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix.

        Args:
            inputs: uint8 pixels (N, height, width, 3), or activations (N, channels, height, width).
            labels: int64 (N).

        Returns:
            Inputs as float of the same axes, and labels as shares of classes (N, classes); or both as they were if
            nothing is to be mixed.
        """
        if not self._ways or len(labels) < 2:
            return inputs, labels
        way = self._ways[int(torch.randint(len(self._ways), ()))]
        if inputs.dtype == torch.uint8:
            images, shares = way(inputs.permute(0, 3, 1, 2).float(), labels)
            return images.permute(0, 2, 3, 1), shares
        if inputs.ndim != 4:
            return inputs, labels
        mixed, shares = way(inputs, labels)
        return mixed, shares
