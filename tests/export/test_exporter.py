"""A real export: what is in the bundle, and what happens to an older one when something goes wrong."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch

from edgewright.export.config import ExportConfig
from edgewright.export.exporter import Export, export
from edgewright.export.quantization.profiles import ORT_ARM
from edgewright.export.trt_lint import lint_trt
from edgewright.runtime.backends import backend_available
from edgewright.runtime.backends.openvino import executable_precisions
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.errors import DataError, EdgewrightError, GateError, UsageError, WeightsError
from edgewright.runtime.verify import verify_bundle
from edgewright.train.run import Run

pytestmark = pytest.mark.slow


def test_bundle_has_every_artefact_and_each_verifies(digits_export: Export) -> None:
    names = {artefact.name for artefact in digits_export.bundle.manifest.artefacts}
    assert names - {"openvino.bf16"} == {
        "model.fp32",
        "model.fp16",
        "model.int8.ort-x86",
        "model.int8.ort-arm",
        "model.int8.trt",
        "openvino.fp32",
        "openvino.fp16",
        "openvino.int8",
    }
    assert ("openvino.bf16" in names) == ("bf16" in executable_precisions())


def test_whatever_runs_here_verifies(digits_export: Export) -> None:
    results = {result.name: result for result in verify_bundle(digits_export.bundle)}
    foreign = {name for name, result in results.items() if result.passed is None}
    other = "model.int8.ort-x86" if platform.machine() in ORT_ARM.machines else "model.int8.ort-arm"
    assert foreign == {other, *({"model.int8.trt"} if not backend_available("tensorrt") else ())}
    assert "made for" in results[other].reason
    assert all(result.passed for result in results.values() if result.name not in foreign)


def test_float_artefacts_agree_with_the_trained_model(digits_export: Export) -> None:
    for finding in digits_export.findings.artefacts:
        proof = finding.proof
        if finding.candidate.precision == "fp32":
            assert proof.parity.top1_agreement >= 0.995
            assert proof.parity.max_abs_logit_diff < 1e-2
            assert proof.drop == pytest.approx(0.0, abs=0.4)


def test_recommended_is_the_fastest_that_was_measured(digits_export: Export) -> None:
    manifest = digits_export.bundle.manifest
    measured = {artefact.name: artefact.p50_ms for artefact in manifest.artefacts if artefact.p50_ms is not None}
    allowed = {f.candidate.name for f in digits_export.findings.artefacts if f.faster is not False}
    assert manifest.recommended == min(measured.keys() & allowed, key=lambda name: measured[name])
    assert manifest.artefacts[0].name == manifest.recommended
    # What is made for other machines was not measured, and comes last.
    assert [artefact.p50_ms is None for artefact in manifest.artefacts] == sorted(
        artefact.p50_ms is None for artefact in manifest.artefacts
    )


def test_precision_that_is_executed_is_told(digits_export: Export) -> None:
    artefacts = {artefact.name: artefact for artefact in digits_export.bundle.manifest.artefacts}
    assert artefacts["model.fp16"].executed == "fp32"
    expected = "fp16" if "fp16" in executable_precisions() else "fp32"
    assert (artefacts["openvino.fp16"].precision, artefacts["openvino.fp16"].executed) == ("fp16", expected)
    assert artefacts["openvino.int8"].executed == "int8"
    halves = artefacts["openvino.fp16"].size_bytes / artefacts["openvino.fp32"].size_bytes
    assert halves < 0.7


def test_labels_are_those_of_the_run_in_its_order(digits_run: Run, bundle_path: Path) -> None:
    assert open_bundle(bundle_path).manifest.labels == digits_run.record.classes
    assert (bundle_path / "labels.txt").read_text().splitlines() == list(digits_run.record.classes)


def test_golden_logits_are_the_trained_networks(digits_run: Run, bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    network = digits_run.network()
    for vector in bundle.manifest.golden:
        pixels = np.frombuffer(bundle.read(vector.tensor), np.uint8).reshape(1, 48, 48, 3)
        with torch.inference_mode():
            logits = network(torch.from_numpy(pixels.copy()))[0].numpy()
        np.testing.assert_allclose(np.asarray(vector.logits), logits, rtol=1e-4, atol=1e-4)


def test_pixel_is_the_quantized_tensor_of_int8(bundle_path: Path) -> None:
    model = onnx.load(bundle_path / "artefacts" / "model.int8.ort-x86.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 10
    first = kinds.index("Conv")
    makers = {name: node for node in model.graph.node for name in node.output}
    assert makers[model.graph.node[first].input[0]].op_type == "DequantizeLinear"
    assert "Cast" not in kinds
    assert not {"QuantizeLinear", "Mul", "Add"} & set(kinds[: kinds.index("Transpose") + 2])


def test_file_for_tensorrt_has_nothing_that_it_rejects(bundle_path: Path) -> None:
    assert lint_trt(onnx.load(bundle_path / "artefacts" / "model.int8.trt.onnx")) == []
    assert lint_trt(onnx.load(bundle_path / "artefacts" / "model.fp32.onnx")) == []


def test_reduced_range_keeps_weights_within_seven_bits(bundle_path: Path) -> None:
    model = onnx.load(bundle_path / "artefacts" / "model.int8.ort-x86.onnx")
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert weights
    assert max(int(np.abs(weight.astype(np.int16)).max()) for weight in weights) <= 64


def test_openvino_ir_carries_model_info_and_uncompressed_weights(bundle_path: Path) -> None:
    model = ov.Core().read_model(bundle_path / "artefacts" / "openvino.fp32" / "model.xml")
    assert model.get_rt_info(["model_info", "model_type"]).astype(str) == "Classification"
    assert model.get_rt_info(["model_info", "labels"]).astype(str).split() == [str(digit) for digit in range(10)]
    kinds = {op.get_element_type().get_type_name() for op in model.get_ops() if op.get_type_name() == "Constant"}
    assert "f16" not in kinds


def test_report_names_calibration_pictures_and_damage(bundle_path: Path) -> None:
    report = json.loads((bundle_path / "report" / "report.json").read_text())
    assert len(report["calibration_sha256"]) == 64
    assert set(report["damage_per_class"]["model.int8.ort-x86"]) == {str(digit) for digit in range(10)}
    assert "| `model.fp32` |" in (bundle_path / "report" / "report.md").read_text()
    page = (bundle_path / "report" / "report.html").read_text()
    assert "How INT8 was made" in page
    steps = report["int8_steps"]
    assert {step["artefact"] for step in steps} >= {"model.int8.ort-x86", "model.int8.trt", "openvino.int8"}
    assert all(step["way"] and step["agreement"] <= 1 for step in steps)
    by_name = {row["name"]: row for row in report["artefacts"]}
    assert isinstance(by_name["model.int8.ort-x86"]["faster_than_float"], bool)
    assert by_name["model.int8.trt"]["p50_ms"] is None


def test_failing_gate_keeps_the_older_bundle(digits_run: Run, bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle_path, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    config = ExportConfig(
        run=str(digits_run.folder),
        out=out,
        formats=("onnx",),
        precisions=("int8",),
        max_drop=0,
        calibration_images=8,
        calibration_method="entropy",
        qat_epochs=0,
    )
    with pytest.raises(GateError, match="No artefact passed its gate"):
        export(config.model_copy(update={"calibration": _black_pictures(tmp_path)}))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def _black_pictures(folder: Path) -> Path:
    """Calibration pictures that say nothing about the activations of real ones."""
    from PIL import Image

    pictures = folder / "black"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (48, 48)).save(pictures / f"{number}.png")
    return pictures


def test_int8_without_pictures_to_calibrate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration DATA"):
        export(ExportConfig(run="mobilenet_v2", out=tmp_path / "bundle", weights="none"))
    assert not (tmp_path / "bundle").exists()


def test_too_few_calibration_pictures_are_refused(digits_run: Run, tmp_path: Path) -> None:
    pictures = _black_pictures(tmp_path)
    for path in list(pictures.iterdir())[3:]:
        path.unlink()
    with pytest.raises(DataError, match="3 pictures to calibrate INT8 on; expected at least 8"):
        export(ExportConfig(run=str(digits_run.folder), out=tmp_path / "bundle", calibration=pictures))


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        ("no/such/run", WeightsError, "No run folder at 'no/such/run'"),
        ("mobilnet_v2", UsageError, "Near names: mobilenet_v2"),
    ],
)
def test_unknown_source_is_refused(run: str, error: type[EdgewrightError], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        export(ExportConfig(run=run, out=tmp_path / "bundle"))


def test_weights_without_classes_of_their_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Train first"):
        export(ExportConfig(run="resnet18", weights="none", precisions=("fp32",), out=tmp_path / "bundle"))


def test_folder_that_is_no_bundle_is_not_overwritten(digits_run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    config = ExportConfig(
        run=str(digits_run.folder), out=tmp_path / "precious", formats=("onnx",), precisions=("fp32",)
    )
    with pytest.raises(EdgewrightError, match="is no bundle; it is not overwritten"):
        export(config)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"
