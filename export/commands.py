"""`edgewright export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import GateError
from edgewright.runtime.extras import require

if TYPE_CHECKING:
    from edgewright.export.exporter import Export
    from edgewright.export.findings import Finding

__all__ = ["export_command", "export_document", "print_export"]


def export_document(result: Export) -> dict[str, Any]:
    """The `--json` document of an export."""
    from edgewright.export.report import artefact_rows

    return {
        "bundle": str(result.bundle.path),
        "recommended": result.bundle.manifest.recommended,
        "artefacts": artefact_rows(result.findings),
        "int8_steps": [asdict(step) for step in result.findings.steps],
    }


def print_export(result: Export) -> None:
    """The table a person sees."""
    recommended = result.bundle.manifest.recommended
    findings = result.findings
    images = findings.artefacts[0].proof.parity.images
    print_table(
        f"{result.bundle.path}: agreement with the trained model on {images} pictures",
        ("artefact", "top-1", "drop", "test top-1", "agreement", "size", "p50", "quantized by", ""),
        [_row(finding, recommended) for finding in findings.artefacts],
    )


def _row(finding: Finding, recommended: str) -> tuple[str | None, ...]:
    candidate, proof = finding.candidate, finding.proof
    if candidate.name == recommended:
        mark = "recommended"
    elif not proof.passed:
        mark = "refused"
    elif finding.faster is False:
        mark = "not faster"
    else:
        mark = f"for {candidate.profile}" if finding.p50_ms is None else ""
    return (
        candidate.name,
        None if proof.top1 is None else f"{proof.top1:.4f}",
        None if proof.drop is None else f"{proof.drop:+.2f}",
        None if proof.test_top1 is None else f"{proof.test_top1:.4f}",
        f"{proof.parity.top1_agreement:.2%}",
        f"{candidate.size_bytes / 1e6:.2f} MB",
        None if finding.p50_ms is None else f"{finding.p50_ms:.2f} ms",
        candidate.quantization,
        mark,
    )


def export_command(
    run: Annotated[str, typer.Argument(help="A run folder, or the name of a backbone to export with its own classes.")],
    out: Annotated[Optional[Path], typer.Option(help="Bundle folder. (default: bundles/NAME)")] = None,
    formats: Annotated[
        Optional[str], typer.Option(help="Comma-separated: onnx, openvino, tensorrt. (default: onnx,openvino)")
    ] = None,
    precisions: Annotated[
        Optional[str],
        typer.Option(
            help="Comma-separated: fp32, fp16, bf16, int8. bf16 where the CPU has it. (default: fp32,bf16,int8)"
        ),
    ] = None,
    max_drop: Annotated[
        Optional[float],
        typer.Option(help="Points of validation top-1 that an artefact may lose before it is repaired. (default: 1.0)"),
    ] = None,
    calibration: Annotated[
        Optional[Path], typer.Option(help="Pictures to calibrate INT8 on. (default: the run's training split)")
    ] = None,
    calibration_images: Annotated[Optional[int], typer.Option(help="How many of them. (default: 200)")] = None,
    calibration_method: Annotated[
        Optional[str],
        typer.Option(help="auto, minmax, percentile, entropy or mse. auto takes the best here. (default: auto)"),
    ] = None,
    qat_epochs: Annotated[
        Optional[int],
        typer.Option(help="Epochs of quantization-aware training, when nothing else repairs INT8. (default: 3)"),
    ] = None,
    weights: Annotated[
        Optional[str], typer.Option(help="Of a backbone: imagenet or a file. (default: imagenet)")
    ] = None,
    imgsz: Annotated[
        Optional[int], typer.Option(help="Of a backbone: input size. (default: that of its weights)")
    ] = None,
    explain: Annotated[
        Optional[bool], typer.Option("--explain", help="Also write a graph that shows what speaks for a label.")
    ] = None,
    golden: Annotated[Optional[int], typer.Option(help="How many golden vectors. (default: 6)")] = None,
    triton: Annotated[
        Optional[Path], typer.Option(help="Also write a Triton/KServe model repository to this folder.")
    ] = None,
    config: Annotated[Optional[Path], typer.Option(help="A YAML file with any of these options; flags win.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Turn a trained run into a bundle of proven artefacts."""
    given = dict(locals())
    flags = {key: value for key, value in given.items() if key not in ("config", "json")}
    for name in ("formats", "precisions"):
        if flags[name] is not None:
            flags[name] = tuple(part.strip() for part in flags[name].split(","))
    flags["out"] = flags["out"] or Path("bundles") / Path(run).name
    from edgewright.export.config import ExportConfig
    from edgewright.runtime.settings import load_settings

    settings = load_settings(ExportConfig, flags, config)
    require("export", "torch", "torchvision", "onnx", "onnxscript", "openvino", "nncf")
    from edgewright.export.exporter import export

    result = export(settings)
    if json:
        emit_json(export_document(result))
    print_export(result)
    notice(f"next: edgewright verify {result.bundle.path}")
    findings = result.findings.artefacts
    passed = {finding.candidate.precision for finding in findings if finding.proof.passed}
    tried = {finding.candidate.precision for finding in findings}
    if lost := [precision for precision in settings.precisions if precision in tried - passed]:
        raise GateError(f"The bundle is written, but without any {', '.join(lost)} artefact: all were refused.")
