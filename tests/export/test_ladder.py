"""INT8 that is broken on purpose is noticed, repaired step by step, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from edgewright.export.config import ExportConfig
from edgewright.export.exporter import Export, export
from edgewright.runtime.errors import DataError
from edgewright.train.run import Run

pytestmark = pytest.mark.slow


def faint_pictures(folder: Path) -> Path:
    """Grey squares: on them no activation reaches what it reaches on digits, so that ranges are far too small."""
    pictures = folder / "faint"
    pictures.mkdir()
    for number in range(16):
        Image.new("RGB", (48, 48), (number, number, number)).save(pictures / f"{number}.png")
    return pictures


def config_for(run: Run, out: Path, **changes: object) -> ExportConfig:
    fields = {"run": str(run.folder), "out": out, "formats": ("onnx",), "precisions": ("fp32", "int8"), "max_drop": 2.0}
    return ExportConfig.model_validate(fields | changes)


def steps_of(result: Export, artefact: str) -> list[str]:
    return [step.way for step in result.findings.steps if step.artefact == artefact]


def test_bad_calibration_is_repaired_by_training(digits_run: Run, tmp_path: Path) -> None:
    result = export(config_for(digits_run, tmp_path / "bundle", calibration=faint_pictures(tmp_path)))
    found = {finding.candidate.name: finding for finding in result.findings.artefacts}["model.int8.ort-x86"]
    steps = [step for step in result.findings.steps if step.artefact == "model.int8.ort-x86"]
    assert steps[0].drop is not None
    assert steps[0].drop > 2.0
    assert "loses" in steps[0].why_not
    assert found.proof.passed
    assert found.proof.drop is not None
    assert found.proof.drop <= 2.0
    assert found.candidate.quantization == steps[-1].way
    assert steps[-1].why_not == ""
    # Ranges in all four ways, then ever more layers in float, then training.
    ways = [step.way for step in steps]
    assert len(ways) > 4
    assert all("ranges" in way for way in ways[:4])
    assert result.findings.rankings["ort-x86"]


def test_bad_calibration_is_refused_where_nothing_may_repair_it(
    digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "calibration": faint_pictures(tmp_path),
        "qat_epochs": 0,
        "max_drop": 0.0,
        "calibration_method": "entropy",
    }
    result = export(config_for(digits_run, tmp_path / "bundle", **changes))
    assert [artefact.name for artefact in result.bundle.manifest.artefacts] == ["model.fp32"]
    told = capsys.readouterr().err
    assert "'model.int8.ort-x86' is refused and left out of the bundle: it loses" in told
    worst = result.findings.rankings["ort-x86"][0].name
    assert f"Worst layers: {worst}" in told


def test_method_that_is_asked_for_is_the_only_one(digits_run: Run, tmp_path: Path) -> None:
    result = export(config_for(digits_run, tmp_path / "bundle", calibration_method="percentile", max_drop=100))
    assert steps_of(result, "model.int8.ort-x86") == ["percentile ranges"]
    assert steps_of(result, "model.int8.ort-arm") == ["percentile ranges"]


def test_calibration_on_pictures_that_it_is_judged_on_is_refused(digits_run: Run, tmp_path: Path) -> None:
    judged = tmp_path / "judged"
    judged.mkdir()
    for number, sample in enumerate(digits_run.data().splits["test"][:10]):
        (judged / f"{number}.png").write_bytes(sample.read_bytes())
    with pytest.raises(DataError, match="on which INT8 is judged"):
        export(config_for(digits_run, tmp_path / "bundle", calibration=judged))
    assert not (tmp_path / "bundle").exists()


def test_interrupt_leaves_the_older_bundle(
    digits_run: Run, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle_path, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgewright.export.exporter.write_golden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(config_for(digits_run, out, precisions=("fp32",)))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
