"""The report inside a bundle: what every artefact loses, class by class, what it gains, and how INT8 was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.export.calibration import CalibrationSet
from edgewright.export.config import ExportConfig
from edgewright.export.findings import Findings
from edgewright.export.report_text import report_document
from edgewright.export.source import ExportSource
from edgewright.export.trial import SURE
from edgewright.train.report.html import to_html
from edgewright.train.report.markdown import to_markdown

__all__ = ["artefact_rows", "write_report"]


def artefact_rows(findings: Findings) -> list[dict[str, Any]]:
    """The `artefacts` of export's `--json` document."""
    return [
        {
            "name": finding.candidate.name,
            "backend": finding.candidate.backend,
            "precision": finding.candidate.precision,
            "executed": finding.candidate.executed,
            "profile": finding.candidate.profile,
            "quantization": finding.candidate.quantization,
            "size_bytes": finding.candidate.size_bytes,
            "top1": finding.proof.top1,
            "drop": finding.proof.drop,
            "test_top1": finding.proof.test_top1,
            "passed": finding.proof.passed,
            "why_not": finding.proof.why_not or None,
            "flips": finding.proof.flips,
            "p50_ms": finding.p50_ms,
            "faster_than_float": finding.faster,
            "float_layers": None if finding.float_layers is None else list(finding.float_layers),
            "parity": {
                "images": finding.proof.parity.images,
                "top1_agreement": finding.proof.parity.top1_agreement,
                "max_abs_logit_diff": finding.proof.parity.max_abs_logit_diff,
                "mean_abs_logit_diff": finding.proof.parity.mean_abs_logit_diff,
            },
        }
        for finding in findings.artefacts
    ]


def write_report(
    folder: Path, source: ExportSource, findings: Findings, calibration: CalibrationSet | None, config: ExportConfig
) -> None:
    """Write report.json, report.md and report.html."""
    document = {
        "name": source.name,
        "backbone": source.backbone,
        "input_px": source.preprocess.crop,
        "recommended": findings.ranked[0].candidate.name,
        "max_drop": config.max_drop,
        "sure": SURE,
        "accuracy_split": findings.guard if source.labelled else None,
        "trained_model": {
            split: float((found.reference.argmax(1) == found.labels).mean()) if source.labelled else None
            for split, found in findings.evidence.items()
        },
        "artefacts": artefact_rows(findings),
        "int8_steps": [asdict(step) for step in findings.steps],
        "layer_damage": {
            profile: [asdict(layer) for layer in ranking] for profile, ranking in findings.rankings.items()
        },
        "damage_per_class": _damage_per_class(source, findings) if source.labelled else {},
        "calibration_sha256": [] if calibration is None else list(calibration.hashes),
    }
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = report_document(document)
    (folder / "report.md").write_text(to_markdown(text), encoding="utf-8")
    (folder / "report.html").write_text(to_html(text, folder), encoding="utf-8")


def _damage_per_class(source: ExportSource, findings: Findings) -> dict[str, dict[str, Mapping[str, float]]]:
    """Per artefact and class, over all splits: pictures that were right and became wrong, the other way round, and how
    much of the softmax the true class lost on average (points).
    """
    evidence = findings.evidence
    labels = np.concatenate([found.labels for found in evidence.values()])
    reference = np.concatenate([found.reference for found in evidence.values()])
    was_right, was_sure = reference.argmax(1) == labels, _share_of(labels, reference)
    damage: dict[str, dict[str, Mapping[str, float]]] = {}
    for finding in findings.artefacts:
        logits = np.concatenate([found.logits[finding.candidate.name] for found in evidence.values()])
        is_right, shift = logits.argmax(1) == labels, 100 * (_share_of(labels, logits) - was_sure)
        damage[finding.candidate.name] = {
            name: _row(labels == index, was_right, is_right, shift) for index, name in enumerate(source.labels)
        }
    return damage


def _row(
    members: npt.NDArray[np.bool_],
    was_right: npt.NDArray[np.bool_],
    is_right: npt.NDArray[np.bool_],
    shift: npt.NDArray[np.float64],
) -> Mapping[str, float]:
    return {
        "pictures": int(members.sum()),
        "lost": int((was_right & ~is_right & members).sum()),
        "gained": int((~was_right & is_right & members).sum()),
        "confidence_shift": round(float(shift[members].mean()), 2) if members.any() else 0.0,
    }


def _share_of(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The softmax of the true class, 0 to 1."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponents[np.arange(len(labels)), labels] / exponents.sum(1)
    return shares
