"""What a person reads after training: report.md, report.html, the pictures in them, metrics.csv, TensorBoard events."""

from __future__ import annotations

from edgewright.train.report.curves import plot_compare
from edgewright.train.report.writer import write_report

__all__ = ["plot_compare", "write_report"]
