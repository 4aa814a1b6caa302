"""One export: from a trained model to a bundle in which everything has been proven."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from edgewright.export.calibration import CalibrationSet, choose_calibration
from edgewright.export.candidates import Candidate, ladders
from edgewright.export.config import ExportConfig
from edgewright.export.golden import write_golden
from edgewright.export.onnx_graph import INPUT_NAME, OUTPUT_NAME, to_onnx
from edgewright.export.proof import Evidence, Proof, collect_evidence, measure_latency, prove, with_candidate
from edgewright.export.report import write_report
from edgewright.export.source import ExportSource, source_from_backbone, source_from_run
from edgewright.runtime.bundle import LABELS_FILE, MANIFEST_FILE, Bundle, open_bundle, record_files, writing_bundle
from edgewright.runtime.console import notice, warn
from edgewright.runtime.errors import DataError, GateError, UsageError, WeightsError
from edgewright.runtime.files import atomic_write
from edgewright.runtime.manifest import Artefact, Manifest, Provenance, TensorRecord
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import preprocess
from edgewright.train.backbones.catalogue import backbone_names, require_backbone
from edgewright.version import __version__

__all__ = ["Export", "export"]

ARTEFACTS_FOLDER = "artefacts"

_FEWEST_CALIBRATION = 8


@dataclass(frozen=True)
class Export:
    """A written bundle, and what was found of every candidate, refused ones included."""

    bundle: Bundle
    candidates: tuple[tuple[Candidate, Proof], ...]
    p50_ms: Mapping[str, float]


def export(config: ExportConfig) -> Export:
    """Export a run or a pretrained backbone.

    Raises:
        GateError: a float artefact does not equal the trained model, or nothing passed; an older bundle at
            `config.out` is untouched.
        EdgewrightError: bad input, see :mod:`edgewright.runtime.errors`.
    """
    torch.set_num_threads(available_cores())
    source = _source(config)
    calibration = _calibrate(source, config)
    notice(f"exporting {source.name} ({source.preprocess.crop} px, {len(source.labels)} classes) to ONNX")
    model = to_onnx(source.network, source.preprocess.crop)
    steps = ladders(model, source, calibration, config)
    candidates = []
    for title, ways in steps.items():
        notice(f"making {title}")
        candidates.append(ways[0]())
    evidence = collect_evidence(source, candidates)
    proven = []
    for candidate, (title, ways) in zip(candidates, steps.items(), strict=True):
        proof = _prove(candidate, evidence, source, config)
        for way in ways[1:]:
            if proof.passed:
                break
            notice(f"{title} ({candidate.quantization}): {proof.why_not}; trying another way")
            candidate = way()
            evidence = with_candidate(evidence, source, candidate)
            proof = _prove(candidate, evidence, source, config)
        proven.append((candidate, proof))
    _gate(proven)
    first = next(iter(source.checked.values()))[0]
    latency = measure_latency([made for made, _ in proven], preprocess(first.source, source.preprocess)[None])
    with writing_bundle(config.out) as folder:
        manifest = _write(folder, source, proven, latency, evidence, calibration, config)
        atomic_write(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2))
    return Export(open_bundle(config.out), tuple(proven), latency)


def _prove(candidate: Candidate, evidence: Mapping[str, Evidence], source: ExportSource, config: ExportConfig) -> Proof:
    return prove(candidate, evidence, labelled=source.labelled, max_drop=config.max_drop)


def _source(config: ExportConfig) -> ExportSource:
    path = Path(config.run)
    if path.is_dir():
        return source_from_run(path, config.calibration)
    if path.exists() or len(path.parts) > 1:
        raise WeightsError(f"No run folder at '{config.run}'. Expected the folder of a finished `edgewright train`.")
    if config.run not in backbone_names():
        try:
            require_backbone(config.run)
        except UsageError as error:
            raise UsageError(f"No run folder at '{config.run}', and no such backbone either. {error}") from error
    needs = "int8" in config.precisions
    return source_from_backbone(config.run, config.weights, config.calibration, config.imgsz, needs)


def _calibrate(source: ExportSource, config: ExportConfig) -> CalibrationSet | None:
    if "int8" not in config.precisions:
        return None
    if len(source.calibration) < _FEWEST_CALIBRATION:
        raise DataError(
            f"{len(source.calibration)} pictures to calibrate INT8 on; expected at least {_FEWEST_CALIBRATION}, better 200. "
            "Give a folder with --calibration DATA, or ask for --precisions fp32 only."
        )
    return choose_calibration(source.calibration, config.calibration_images, source.preprocess)


def _gate(proven: list[tuple[Candidate, Proof]]) -> None:
    """Stop for a wrong float artefact; leave out a damaged INT8 one, aloud."""
    for candidate, proof in proven:
        if not proof.passed and candidate.precision != "int8":
            raise GateError(
                f"The parity gate stopped the export: '{candidate.name}' is not the trained model; {proof.why_not}. "
                "No bundle was written. This is a fault of the conversion; please report it with the backbone's name."
            )
    for candidate, proof in proven:
        if not proof.passed:
            warn(f"'{candidate.name}' is refused and left out of the bundle: {proof.why_not}.")
    if not any(proof.passed for _, proof in proven):
        raise GateError(
            "No artefact passed its gate, so no bundle was written. Add --precisions fp32,int8 or raise --max-drop."
        )


def _write(
    folder: Path,
    source: ExportSource,
    proven: list[tuple[Candidate, Proof]],
    latency: Mapping[str, float],
    evidence: dict[str, Evidence],
    calibration: CalibrationSet | None,
    config: ExportConfig,
) -> Manifest:
    passed = [(candidate, proof) for candidate, proof in proven if proof.passed]
    for candidate, _ in passed:
        for name, content in candidate.files.items():
            path = folder / ARTEFACTS_FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
    golden = write_golden(source, config.golden, folder)
    # The fastest first: that order is the bundle's preference, and its head the recommendation.
    artefacts = (_artefact(candidate, proof, latency[candidate.name]) for candidate, proof in passed)
    ranked = sorted(artefacts, key=lambda artefact: artefact.p50_ms or 0.0)
    metrics = {
        f"{split}_top1": float((found.reference.argmax(1) == found.labels).mean()) if source.labelled else None
        for split, found in evidence.items()
    }
    write_report(folder / "report", source, proven, latency, evidence, calibration, ranked[0].name, config)
    crop = source.preprocess.crop
    return Manifest(
        name=source.name,
        labels=source.labels,
        preprocess=source.preprocess,
        input=TensorRecord(
            name=INPUT_NAME, dtype="uint8", axes=("batch", "height", "width", "channel"), shape=(-1, crop, crop, 3)
        ),
        output=TensorRecord(name=OUTPUT_NAME, dtype="float32", axes=("batch", "class"), shape=(-1, len(source.labels))),
        artefacts=tuple(ranked),
        recommended=ranked[0].name,
        golden=golden,
        metrics=metrics,
        provenance=Provenance(
            edgewright=__version__,
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            backbone=source.backbone,
            weights=source.weights,
            strategy=source.strategy,
            data=None if source.data is None else Path(source.data).name,
            seed=source.seed,
            versions={
                name: metadata.version(name)
                for name in ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "nncf")
            },
            calibration_images=0 if calibration is None else len(calibration.hashes),
            calibration_sha256=None if calibration is None else calibration.sha256,
            exported_on=f"{platform.system()} {platform.machine()}",
        ),
        licence=source.licence,
        files=record_files(folder),
    )


def _artefact(candidate: Candidate, proof: Proof, p50_ms: float) -> Artefact:
    model, *weights = (f"{ARTEFACTS_FOLDER}/{name}" for name in candidate.files)
    return Artefact(
        name=candidate.name,
        backend=candidate.backend,
        precision=candidate.precision,
        profile=candidate.profile,
        quantization=candidate.quantization,
        file=model,
        weights_file=weights[0] if weights else None,
        size_bytes=candidate.size_bytes,
        parity=proof.parity,
        accuracy_split=proof.accuracy_split,
        top1=proof.top1,
        drop=proof.drop,
        test_top1=proof.test_top1,
        p50_ms=float(np.round(p50_ms, 4)),
    )
