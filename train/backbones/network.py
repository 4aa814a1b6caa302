"""The network that is trained, evaluated and exported: uint8 pixels in, logits out."""

from __future__ import annotations

import torch
from torch import nn

from edgewright.runtime.preprocess import Preprocess

__all__ = ["Network"]


class Network(nn.Module):
    """Normalisation and a backbone in one module, so that nobody can normalise differently later.

    Shapes: pixels uint8 (N, height, width, 3), RGB -> logits float32 (N, classes).
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, backbone: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.backbone = backbone
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        # (x / 255 - mean) / std as one multiplication and one addition. Not in the state dict: the manifest has them.
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        # NHWC seen as NCHW is channels-last already, which is what convolutions want.
        images = pixels.permute(0, 3, 1, 2)
        if torch.compiler.is_exporting():
            # Without it the exporter writes the strides down as Shape, Range and Gather nodes.
            images = images.contiguous()
        logits: torch.Tensor = self.backbone(images.to(self.scale.dtype) * self.scale + self.shift)
        return logits
