"""The report inside a bundle: what every artefact loses, class by class, and what it gains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.export.calibration import CalibrationSet
from edgewright.export.candidates import Candidate
from edgewright.export.config import ExportConfig
from edgewright.export.proof import Evidence, Proof
from edgewright.export.source import ExportSource

__all__ = ["artefact_rows", "write_report"]


def artefact_rows(proven: Sequence[tuple[Candidate, Proof]], latency: Mapping[str, float]) -> list[dict[str, Any]]:
    """The `artefacts` of export's `--json` document."""
    return [
        {
            "name": candidate.name,
            "backend": candidate.backend,
            "precision": candidate.precision,
            "profile": candidate.profile,
            "quantization": candidate.quantization,
            "size_bytes": candidate.size_bytes,
            "top1": proof.top1,
            "drop": proof.drop,
            "test_top1": proof.test_top1,
            "passed": proof.passed,
            "why_not": proof.why_not or None,
            "flips": proof.flips,
            "p50_ms": latency[candidate.name],
            "parity": {
                "images": proof.parity.images,
                "top1_agreement": proof.parity.top1_agreement,
                "max_abs_logit_diff": proof.parity.max_abs_logit_diff,
                "mean_abs_logit_diff": proof.parity.mean_abs_logit_diff,
            },
        }
        for candidate, proof in proven
    ]


def write_report(
    folder: Path,
    source: ExportSource,
    proven: Sequence[tuple[Candidate, Proof]],
    latency: Mapping[str, float],
    evidence: Mapping[str, Evidence],
    calibration: CalibrationSet | None,
    recommended: str,
    config: ExportConfig,
) -> None:
    """Write report.json and report.md."""
    damage = _damage_per_class(source, proven, evidence) if source.labelled else {}
    document = {
        "name": source.name,
        "recommended": recommended,
        "max_drop": config.max_drop,
        "trained_model": {
            split: float((found.reference.argmax(1) == found.labels).mean()) if source.labelled else None
            for split, found in evidence.items()
        },
        "artefacts": artefact_rows(proven, latency),
        "damage_per_class": damage,
        "calibration_sha256": [] if calibration is None else list(calibration.hashes),
    }
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(_markdown(source, document), encoding="utf-8")


def _damage_per_class(
    source: ExportSource, proven: Sequence[tuple[Candidate, Proof]], evidence: Mapping[str, Evidence]
) -> dict[str, dict[str, dict[str, int]]]:
    """Per artefact and class: pictures that were right and became wrong, and the other way round, all splits."""
    labels = np.concatenate([found.labels for found in evidence.values()])
    was_right = np.concatenate([found.reference.argmax(1) for found in evidence.values()]) == labels
    damage: dict[str, dict[str, dict[str, int]]] = {}
    for candidate, _ in proven:
        logits = np.concatenate([found.logits[candidate.name] for found in evidence.values()])
        is_right = logits.argmax(1) == labels
        damage[candidate.name] = {
            name: {
                "pictures": int((labels == index).sum()),
                "lost": int((was_right & ~is_right & (labels == index)).sum()),
                "gained": int((~was_right & is_right & (labels == index)).sum()),
            }
            for index, name in enumerate(source.labels)
        }
    return damage


def _markdown(source: ExportSource, document: Mapping[str, Any]) -> str:
    trained = ", ".join(
        f"{split} top-1 {top1:.4f}" for split, top1 in document["trained_model"].items() if top1 is not None
    )
    lines = [
        f"# {source.name}",
        "",
        f"{source.backbone}, {source.preprocess.crop} px, {len(source.labels)} classes."
        + (f" Trained model: {trained}." if trained else ""),
        "",
        "| artefact | size | top-1 | drop | agreement | largest logit difference | p50 | quantized by | |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in document["artefacts"]:
        mark = (
            "recommended"
            if row["name"] == document["recommended"]
            else ""
            if row["passed"]
            else f"refused: {row['why_not']}"
        )
        top1 = "–" if row["top1"] is None else f"{row['top1']:.4f}"
        drop = "–" if row["drop"] is None else f"{row['drop']:+.2f}"
        lines.append(
            f"| {row['name']} | {row['size_bytes'] / 1e6:.2f} MB | {top1} | {drop} | {row['parity']['top1_agreement']:.2%} "
            f"| {row['parity']['max_abs_logit_diff']:.2g} | {row['p50_ms']:.2f} ms | {row['quantization'] or ''} | {mark} |"
        )
    lines += [
        "",
        f"Agreement and differences against the trained model in PyTorch on {document['artefacts'][0]['parity']['images']} "
        "pictures that were not trained on. p50 is the engine alone, on the machine that exported, all its cores.",
    ]
    for name, classes in document["damage_per_class"].items():
        hurt = {label: row for label, row in classes.items() if row["lost"] or row["gained"]}
        if hurt:
            lines += ["", f"## What {name} changes", "", "| class | pictures | lost | gained |", "|---|---:|---:|---:|"]
            lines += [
                f"| {label} | {row['pictures']} | {row['lost']} | {row['gained']} |" for label, row in hurt.items()
            ]
    return "\n".join(lines) + "\n"
