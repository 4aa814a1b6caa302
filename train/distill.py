"""A student that also learns what a teacher says about the same view of the same picture.

Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), with the same crop for both as in Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent" (2022). The teacher never runs in the loop: its logits
are computed once per cached view.

A teacher that was trained on the student's classes (a run) teaches the student's own head. One with other classes
(ImageNet's, say) teaches a second linear head on the student's features, which is thrown away afterwards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.data.loading import Batch, Renderer
from edgewright.train.features import ActivationCache, Compiled, compile_frozen

__all__ = ["Lessons", "Taught", "compile_teacher"]


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


def compile_teacher(teacher: nn.Module, preprocess: Preprocess, student_size: int, device: torch.device) -> Compiled:
    """The teacher for the student's pixels: `preprocess` gives the teacher's own input size and statistics."""
    network: nn.Module = Network(teacher, preprocess).eval()
    if preprocess.crop != student_size:
        network = _Rescaled(network, preprocess.crop)
    return compile_frozen(network, student_size, device)


class Lessons:
    """What the teacher says: float16 logits of every sample in `views` views, each computed when it is first shown."""

    def __init__(self, compiled: Compiled, classes: int, renderer: Renderer, views: int, folder: Path) -> None:
        self.classes = classes
        self._cache = ActivationCache((classes,), renderer, list(range(1, views + 1)), np.float16, folder)
        self._compiled = compiled

    def prepare(self, row: int) -> None:
        """Make sure that the logits of the view in `row` are there."""
        self._cache.ensure(row, self._compiled, "teacher")

    def logits(self, row: int, indices: torch.Tensor) -> torch.Tensor:
        """float32 (N, classes) for samples `indices` (N) in the view of `row`."""
        return torch.from_numpy(self._cache.read(row, indices.cpu().numpy()).astype(np.float32))

    def close(self) -> None:
        """Delete the logits."""
        self._cache.close()


class Taught(nn.Module):
    """The student while it is taught: batch inputs to (its logits, the logits that the teacher's are compared with).

    Args:
        model: The student, or its trained tail.
        head: Its last layer.
        lessons: What the teacher says.
        same_classes: Whether the teacher's classes are the student's, in the same order.
        temperature: Softens both distributions.
    """

    def __init__(
        self, model: nn.Module, head: nn.Linear, lessons: Lessons, *, same_classes: bool, temperature: float
    ) -> None:
        super().__init__()
        self.model = model
        self.second = None if same_classes else nn.Linear(head.in_features, lessons.classes)
        self._lessons, self._temperature = lessons, temperature
        self._features: torch.Tensor | None = None
        head.register_forward_pre_hook(self._remember)

    def _remember(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._features = inputs[0]

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits for the labels, and logits for the teacher."""
        logits: torch.Tensor = self.model(inputs)
        if self.second is None:
            return logits, logits
        assert self._features is not None
        return logits, self.second(self._features)

    def loss(self, ours: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Kullback-Leibler divergence at the temperature, from the teacher's to ours, (N, classes)."""
        taught = self._lessons.logits(batch.view_row, batch.indices).to(ours.device)
        student = functional.log_softmax(ours.float() / self._temperature, dim=1)
        theirs = functional.log_softmax(taught / self._temperature, dim=1)
        return self._temperature**2 * functional.kl_div(student, theirs, log_target=True, reduction="batchmean")

    def prepare(self, row: int) -> None:
        """Make sure that the lessons of the view in `row` are there."""
        self._lessons.prepare(row)

    def close(self) -> None:
        """Delete the lessons."""
        self._lessons.close()
