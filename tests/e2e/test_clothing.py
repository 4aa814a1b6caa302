"""Real photographs and real ImageNet weights, where they are at hand: what the README promises of accuracy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgewright.export.config import ExportConfig
from edgewright.export.exporter import Export, export
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.validate import labelled_pictures, validate
from edgewright.runtime.verify import verify_bundle
from edgewright.train.config import TrainConfig
from edgewright.train.run import Run
from edgewright.train.trainer import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clothing(shared: Path) -> Path:
    return shared / "data" / "clothing"


def head_of(shared: Path, clothing: Path, out: Path, imgsz: int) -> Run:
    weights = shared / "weights" / "mobilenet_v2-imagenet.pth"
    return train(TrainConfig(data=str(clothing), weights=str(weights), strategy="head", imgsz=imgsz, out=str(out)))


@pytest.fixture(scope="module")
def head_run(shared: Path, clothing: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """At 128 px, where all that an export tries takes a third of the time."""
    return head_of(shared, clothing, tmp_path_factory.mktemp("clothing") / "head", 128)


@pytest.fixture(scope="module")
def bundle(head_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    # Training with quantization has tests of its own.
    out = tmp_path_factory.mktemp("clothing") / "bundle"
    return export(ExportConfig(run=str(head_run.folder), out=out, calibration_images=100, qat_epochs=0))


def test_head_reaches_86_percent_on_test(shared: Path, clothing: Path, tmp_path: Path) -> None:
    record = head_of(shared, clothing, tmp_path / "head", 224).record
    assert record.test_top1 is not None
    assert record.test_top1 >= 0.86


def test_float_artefacts_agree_with_torch_on_nearly_every_picture(bundle: Export) -> None:
    for finding in bundle.findings.artefacts:
        proof = finding.proof
        if finding.candidate.precision == "fp32":
            assert proof.parity.top1_agreement >= 0.995
            assert proof.parity.max_abs_logit_diff < 0.01


def test_every_artefact_is_within_a_point_of_the_trained_model_on_test(
    head_run: Run, bundle: Export, clothing: Path
) -> None:
    manifest = bundle.bundle.manifest
    here = runnable_artefacts(bundle.bundle, None)
    found = validate(bundle.bundle, here, labelled_pictures(clothing, manifest.labels, "test"))
    assert found.unreadable == ()
    assert {row.name for row in found.artefacts} >= {"model.fp32", "openvino.fp32"}
    for row in found.artefacts:
        assert row.top1 >= (head_run.record.test_top1 or 0) - 0.010, row
    elsewhere = [artefact for artefact in manifest.artefacts if artefact not in here]
    assert elsewhere
    assert all((a.test_top1 or 0) >= (head_run.record.test_top1 or 0) - 0.010 for a in elsewhere), elsewhere


def test_bundle_verifies(bundle: Export) -> None:
    assert not any(result.passed is False for result in verify_bundle(bundle.bundle))


def test_pretrained_backbone_exports_with_its_own_thousand_classes(
    shared: Path, clothing: Path, tmp_path: Path
) -> None:
    # A few photographs of each garment: half calibrate, half are compared.
    for garment in (clothing / "validation").iterdir():
        folder = tmp_path / "photographs" / garment.name
        folder.mkdir(parents=True)
        for picture in sorted(garment.iterdir())[:4]:
            shutil.copy(picture, folder)
    weights = str(shared / "weights" / "mobilenet_v2-imagenet.pth")
    config = ExportConfig(
        run="mobilenet_v2",
        weights=weights,
        calibration=tmp_path / "photographs",
        precisions=("fp32",),
        out=tmp_path / "bundle",
    )
    result = export(config)
    manifest = result.bundle.manifest
    assert len(manifest.labels) == 1000
    assert manifest.labels[610] == "jersey"
    passed = {finding.candidate.name for finding in result.findings.artefacts if finding.proof.passed}
    assert passed >= {"model.fp32", "openvino.fp32"}
    assert json.loads((result.bundle.path / "manifest.json").read_text())["artefacts"][0]["top1"] is None
