"""Quantization-aware training: the last step in the repair of an INT8 graph."""

from __future__ import annotations

from edgewright.export.qat.training import Batches, QatRecord, QatResult, finetune

__all__ = ["Batches", "QatRecord", "QatResult", "finetune"]
