"""One export: from a trained model to a bundle in which everything has been proven."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch

from edgewright.export.calibration import CalibrationSet, choose_calibration
from edgewright.export.candidates import Candidate
from edgewright.export.config import ExportConfig
from edgewright.export.explain import EXPLAIN_FILE, explaining_graph
from edgewright.export.findings import Finding, Findings, gather
from edgewright.export.floats import float_candidates
from edgewright.export.golden import write_golden
from edgewright.export.ladder import onnx_ways, openvino_ways
from edgewright.export.onnx_graph import INPUT_NAME, OUTPUT_NAME, to_onnx
from edgewright.export.quantization.profiles import ORT_ARM, ORT_X86, TRT
from edgewright.export.quantization.ranges import METHODS
from edgewright.export.quantization.workshop import Workshop
from edgewright.export.report import write_report
from edgewright.export.simulate import simulate
from edgewright.export.source import ExportSource, source_from_backbone, source_from_run
from edgewright.export.training import make_train
from edgewright.export.trial import Trial
from edgewright.export.triton import write_triton_repository
from edgewright.runtime.bundle import (
    LABELS_FILE,
    MANIFEST_FILE,
    Bundle,
    open_bundle,
    record_files,
    require_free,
    writing_bundle,
)
from edgewright.runtime.console import notice, warn
from edgewright.runtime.errors import GateError, UsageError, WeightsError
from edgewright.runtime.files import atomic_write
from edgewright.runtime.manifest import Artefact, Manifest, Provenance, TensorRecord
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import preprocess
from edgewright.train.backbones.catalogue import backbone_names, require_backbone
from edgewright.version import __version__

__all__ = ["Export", "export"]

ARTEFACTS_FOLDER = "artefacts"
_EXPLAINED = 4
"""Pictures on which the graph of maps is compared with the model."""


@dataclass(frozen=True)
class Export:
    """A written bundle, and what was found of every candidate, refused ones included."""

    bundle: Bundle
    findings: Findings


def export(config: ExportConfig) -> Export:
    """Export a run or a pretrained backbone.

    Raises:
        GateError: a float artefact does not equal the trained model, or nothing passed; an older bundle at
            `config.out` is untouched.
        EdgewrightError: bad input, see :mod:`edgewright.runtime.errors`.
    """
    # What cannot be written is told before minutes of work.
    require_free(config.out)
    torch.set_num_threads(available_cores())
    source = _source(config)
    calibration = _calibrate(source, config)
    notice(f"exporting {source.name} ({source.preprocess.crop} px, {len(source.labels)} classes) to ONNX")
    model = to_onnx(source.network, source.preprocess.crop)
    trial = Trial(source, config.max_drop)
    floats = list(float_candidates(model, source, config))
    workshop = None if calibration is None else _workshop(model, source, calibration, config)
    ladders = {} if workshop is None else _ladders(workshop, source, trial, config)
    firsts = []
    for title, ways in ladders.items():
        notice(f"making {title}")
        firsts.append(next(ways))
    trial.begin([*floats, *firsts])
    _gate_floats(floats, trial)
    quantized = [trial.climb(first, ways) for first, ways in zip(firsts, ladders.values(), strict=True)]
    trial.finish([*floats, *quantized])
    _gate_floats(floats, trial)
    findings = gather([*floats, *quantized], trial, {} if workshop is None else workshop.rankings)
    _gate(findings)
    with writing_bundle(config.out) as folder:
        explain = _write_explain(folder, model, source) if config.explain else None
        manifest = _write(folder, source, findings, calibration, config, explain)
        atomic_write(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2))
    bundle = open_bundle(config.out)
    if config.triton is not None:
        write_triton_repository(bundle, config.triton)
    return Export(bundle, findings)


def _workshop(
    model: onnx.ModelProto, source: ExportSource, calibration: CalibrationSet, config: ExportConfig
) -> Workshop:
    methods = METHODS if config.calibration_method == "auto" else (config.calibration_method,)
    return Workshop(model, source.preprocess, calibration.pixels, methods)


def _ladders(
    workshop: Workshop, source: ExportSource, trial: Trial, config: ExportConfig
) -> dict[str, Iterator[Candidate]]:
    """Ways to make each INT8 artefact that is asked for."""
    train = make_train(source, workshop, trial, config.qat_epochs)
    ladders: dict[str, Iterator[Candidate]] = {}
    if "onnx" in config.formats:
        for profile in (ORT_X86, ORT_ARM):
            ladders[f"INT8 for ONNX Runtime ({profile.name})"] = onnx_ways(workshop, profile, train)
    if "tensorrt" in config.formats:
        ladders["INT8 for TensorRT"] = onnx_ways(workshop, TRT, train)
    if "openvino" in config.formats:
        ladders["INT8 for OpenVINO"] = openvino_ways(workshop, source.labels, train, trial.by_speed)
    return ladders


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
    held_out = [sample for samples in source.checked.values() for sample in samples]
    count, strict = config.calibration_images, config.calibration is not None
    return choose_calibration(source.calibration, count, source.preprocess, held_out, strict=strict)


def _gate_floats(candidates: Sequence[Candidate], trial: Trial) -> None:
    """Stop for an FP32 artefact that is not the trained model."""
    for candidate in candidates:
        proof = trial.judge(candidate)
        if not proof.passed and candidate.precision == "fp32":
            raise GateError(
                f"The parity gate stopped the export: '{candidate.name}' is not the trained model; {proof.why_not}. "
                "No bundle was written. This is a fault of the conversion; please report it with the backbone's name."
            )


def _gate(findings: Findings) -> None:
    """Leave out what is damaged, aloud; stop if nothing is left. Say where INT8 is not worth it."""
    for finding in findings.artefacts:
        name = finding.candidate.name
        if not finding.proof.passed:
            # OpenVINO's way up the ladder follows the ranking of this profile.
            worst = findings.rankings.get(finding.candidate.profile or ORT_X86.name, [])[:3]
            blamed = f" Worst layers: {', '.join(layer.name for layer in worst)}." if worst else ""
            warn(f"'{name}' is refused and left out of the bundle: {finding.proof.why_not}.{blamed}")
        elif finding.faster is False:
            warn(f"'{name}' is not faster here than the fastest float artefact, and will not be recommended here.")
    if not findings.ranked:
        raise GateError(
            "No artefact passed its gate, so no bundle was written. Add --precisions fp32,int8 or raise --max-drop."
        )


def _write_explain(folder: Path, model: onnx.ModelProto, source: ExportSource) -> str | None:
    """Write the graph of maps, if there can be one; proven on a few pictures to answer as the model does."""
    graph = explaining_graph(model)
    if graph is None:
        warn(f"--explain: '{source.backbone}' does not judge by the average of a feature map, so it has no maps")
        return None
    for picture in next(iter(source.checked.values()))[:_EXPLAINED]:
        pixels = preprocess(picture.source, source.preprocess)[None]
        plain, explained = simulate(model, pixels), simulate(graph, pixels)
        if not np.allclose(plain, explained, atol=1e-3 * max(1.0, float(np.abs(plain).max()))):
            raise GateError(
                "The graph of maps does not answer as the model does. Please report it with the backbone's name."
            )
    path = folder / EXPLAIN_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(graph.SerializeToString())
    return EXPLAIN_FILE


def _write(
    folder: Path,
    source: ExportSource,
    findings: Findings,
    calibration: CalibrationSet | None,
    config: ExportConfig,
    explain: str | None,
) -> Manifest:
    ranked = findings.ranked
    for finding in ranked:
        for name, content in finding.candidate.files.items():
            path = folder / ARTEFACTS_FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
    golden = write_golden(source, config.golden, folder)
    artefacts = tuple(_artefact(finding) for finding in ranked)
    metrics = {
        f"{split}_top1": float((found.reference.argmax(1) == found.labels).mean()) if source.labelled else None
        for split, found in findings.evidence.items()
    }
    write_report(folder / "report", source, findings, calibration, config)
    crop = source.preprocess.crop
    return Manifest(
        name=source.name,
        labels=source.labels,
        preprocess=source.preprocess,
        input=TensorRecord(
            name=INPUT_NAME, dtype="uint8", axes=("batch", "height", "width", "channel"), shape=(-1, crop, crop, 3)
        ),
        output=TensorRecord(name=OUTPUT_NAME, dtype="float32", axes=("batch", "class"), shape=(-1, len(source.labels))),
        artefacts=artefacts,
        recommended=artefacts[0].name,
        golden=golden,
        explain=explain,
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


def _artefact(finding: Finding) -> Artefact:
    candidate, proof = finding.candidate, finding.proof
    model, *weights = (f"{ARTEFACTS_FOLDER}/{name}" for name in candidate.files)
    return Artefact(
        name=candidate.name,
        backend=candidate.backend,
        precision=candidate.precision,
        executed=candidate.executed,
        profile=candidate.profile,
        layout=candidate.layout,
        machines=candidate.machines,
        quantization=candidate.quantization,
        file=model,
        weights_file=weights[0] if weights else None,
        size_bytes=candidate.size_bytes,
        parity=proof.parity,
        accuracy_split=proof.accuracy_split,
        top1=proof.top1,
        drop=proof.drop,
        test_top1=proof.test_top1,
        p50_ms=None if finding.p50_ms is None else round(finding.p50_ms, 4),
        known_energy=finding.proof.known_energy,
    )
