"""Weights against class imbalance."""

from __future__ import annotations

import numpy as np
import torch

from edgewright.train.strategies.job import Job

__all__ = ["class_weights"]


def class_weights(job: Job) -> torch.Tensor:
    """float32 (classes): inverse to how often each class is in the training split, one on average over its pictures."""
    labels = job.labels("train")
    counts = np.bincount(labels, minlength=len(job.data.classes))
    return torch.from_numpy((len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32))
