"""Bundles of every older version open; those of a newer one, and of this one with fields it does not know, do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edgewright
from edgewright.runtime.bundle import MANIFEST_FILE, open_bundle
from edgewright.runtime.manifest import SCHEMA_VERSION, parse_manifest

from .conftest import OLDER, Start, refusal

BUNDLES = sorted(path for path in OLDER.iterdir() if path.is_dir())
MANIFESTS = sorted(OLDER.rglob("*manifest.json"))


def test_every_version_has_a_bundle_and_a_manifest_of_all_artefacts_here() -> None:
    """Who raises the version adds what the version before wrote."""
    found = {json.loads(path.read_bytes())["schema_version"] for path in MANIFESTS}
    assert found == set(range(1, SCHEMA_VERSION + 1))
    assert {path.name.partition("-")[0] for path in BUNDLES} == {f"v{version}" for version in found}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(OLDER).as_posix())
def test_manifest_of_every_version_is_read(path: Path, faults: Any) -> None:
    faults.tried("manifest of an older version", "manifest")
    manifest = parse_manifest(path.read_bytes(), path.name)
    assert manifest.artefact(manifest.recommended).parity.images > 0


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_bundle_of_every_version_is_verified(path: Path, run: Start, faults: Any) -> None:
    faults.tried("manifest of an older version", "verify")
    done = run("verify", path).done()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("artefact", ["model.fp32", "openvino.fp32"])
def test_bundle_of_every_version_labels_as_it_did(path: Path, artefact: str, faults: Any) -> None:
    faults.tried("manifest of an older version", "predict")
    with edgewright.load(path, artefact, threads=1) as classifier:
        for vector in open_bundle(path).manifest.golden:
            assert classifier(path / vector.image).label == vector.label


@pytest.mark.parametrize("command", ["verify", "predict", "compile", "tune", "bench", "serve"])
def test_newer_manifest_is_refused_with_advice(small_bundle: Path, run: Start, command: str, faults: Any) -> None:
    faults.tried("manifest of a newer version", command)
    file = small_bundle / MANIFEST_FILE
    document = json.loads(file.read_bytes())
    file.write_text(json.dumps(document | {"schema_version": SCHEMA_VERSION + 1, "new": "field"}))
    more: dict[str, list[str | Path]] = {
        "predict": [small_bundle / "golden" / "000.png"],
        "compile": ["--backend", "openvino"],
    }
    line = refusal(
        run(command, small_bundle, *more.get(command, [])).done(),
        "Upgrade edgewright on this machine, or export the bundle",
    )
    assert f"schema version {SCHEMA_VERSION + 1}" in line


def test_field_that_this_version_does_not_know_is_refused(small_bundle: Path, run: Start, faults: Any) -> None:
    faults.tried("manifest with an unknown field", "verify")
    file = small_bundle / MANIFEST_FILE
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"surprise": 1}))
    refusal(run("verify", small_bundle).done(), "surprise: Extra inputs are not permitted")
