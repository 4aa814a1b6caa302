"""The manifest: what is written is read back, and what does not hold together is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright.runtime.bundle import MANIFEST_FILE
from edgewright.runtime.errors import BundleError
from edgewright.runtime.manifest import Manifest, parse_manifest

Document = dict[str, Any]


@pytest.fixture
def document(tiny_bundle: Path) -> Document:
    """The tiny bundle's manifest as JSON."""
    found: Document = json.loads((tiny_bundle / MANIFEST_FILE).read_bytes())
    return found


def parse(document: object) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), "here/manifest.json")


def test_what_is_written_is_read_back(tiny_bundle: Path) -> None:
    manifest = parse_manifest((tiny_bundle / MANIFEST_FILE).read_bytes(), "manifest.json")
    assert parse_manifest(manifest.model_dump_json().encode(), "again") == manifest


def test_labels_beyond_ascii_survive(document: Document) -> None:
    assert parse(document).labels == ("red", "green", "blue", "très noir")


def test_manifest_cannot_be_changed(document: Document) -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(document).name = "another"  # type: ignore[misc]


def test_artefact_is_found_by_name(document: Document) -> None:
    assert parse(document).artefact("model.fp32").file == "artefacts/model.fp32.onnx"


def test_unknown_artefact_lists_those_there_are(document: Document) -> None:
    with pytest.raises(BundleError, match=r"No artefact 'model\.int4'.*openvino\.fp32, model\.fp32"):
        parse(document).artefact("model.int4")


@pytest.mark.parametrize(
    "place",
    [
        lambda document: document,
        lambda document: document["preprocess"],
        lambda document: document["artefacts"][0],
        lambda document: document["artefacts"][0]["parity"],
        lambda document: document["golden"][0],
        lambda document: document["files"]["labels.txt"],
    ],
    ids=["top", "preprocess", "artefact", "parity", "golden", "file"],
)
def test_unknown_field_is_refused(document: Document, place: Callable[[Document], Document]) -> None:
    place(document)["surprise"] = 1
    with pytest.raises(BundleError, match=r"surprise: Extra inputs are not permitted"):
        parse(document)


@pytest.mark.parametrize("field", ["labels", "preprocess", "artefacts", "recommended", "golden", "licence", "files"])
def test_missing_field_is_named(document: Document, field: str) -> None:
    del document[field]
    with pytest.raises(BundleError, match=f"{field}: Field required"):
        parse(document)


def test_newer_schema_says_to_upgrade(document: Document) -> None:
    document["schema_version"] = 2
    document["what_the_future_brings"] = True
    with pytest.raises(BundleError, match=r"schema version 2; .*reads up to 1\. Upgrade edgewright"):
        parse(document)


@pytest.mark.parametrize("version", [None, "1", 1.0, [1]])
def test_schema_version_that_is_no_integer_is_refused(document: Document, version: object) -> None:
    document["schema_version"] = version
    with pytest.raises(BundleError, match="no schema_version"):
        parse(document)


@pytest.mark.parametrize("version", [0, -1])
def test_schema_version_that_never_was_is_refused(document: Document, version: int) -> None:
    document["schema_version"] = version
    with pytest.raises(BundleError, match="schema_version: Input should be 1"):
        parse(document)


def test_more_labels_than_outputs_are_refused(document: Document) -> None:
    document["labels"].append("white")
    with pytest.raises(BundleError, match="4 outputs but 5 labels"):
        parse(document)


@pytest.mark.parametrize("label", ["", "two\nlines"])
def test_label_that_is_no_line_is_refused(document: Document, label: str) -> None:
    document["labels"][0] = label
    with pytest.raises(BundleError, match="labels must be non-empty single lines"):
        parse(document)


def test_single_label_is_refused(document: Document) -> None:
    document["labels"] = ["red"]
    with pytest.raises(BundleError, match="labels: "):
        parse(document)


def test_golden_vector_with_too_few_logits_is_refused(document: Document) -> None:
    document["golden"][1]["logits"].pop()
    with pytest.raises(BundleError, match="golden vector has another number of logits"):
        parse(document)


def test_input_that_preprocessing_does_not_give_is_refused(document: Document) -> None:
    document["preprocess"]["crop"] = 12
    with pytest.raises(BundleError, match="not what preprocessing gives"):
        parse(document)


@pytest.mark.parametrize(
    "file",
    ["artefacts/model.fp32.onnx", "artefacts/openvino.fp32/model.bin", "golden/000.png", "golden/000.rgb"],
)
def test_file_without_checksum_is_named(document: Document, file: str) -> None:
    del document["files"][file]
    with pytest.raises(BundleError, match=f"'{file}' has no checksum"):
        parse(document)


@pytest.mark.parametrize("checksum", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_checksum_that_is_no_sha256_is_refused(document: Document, checksum: str) -> None:
    document["files"]["labels.txt"]["sha256"] = checksum
    with pytest.raises(BundleError, match=r"files\.labels\.txt\.sha256"):
        parse(document)


def test_recommended_artefact_has_to_be_there(document: Document) -> None:
    document["recommended"] = "model.int8.ort-x86"
    with pytest.raises(BundleError, match=r"recommended artefact 'model\.int8\.ort-x86' is not in the bundle"):
        parse(document)


def test_two_artefacts_of_one_name_are_refused(document: Document) -> None:
    document["artefacts"][1]["name"] = document["artefacts"][0]["name"]
    with pytest.raises(BundleError, match="two artefacts have the same name"):
        parse(document)


def test_bundle_without_artefacts_is_refused(document: Document) -> None:
    document["artefacts"] = []
    with pytest.raises(BundleError, match="artefacts: "):
        parse(document)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"labels: [a, b]", b"\xff\xfe\x00\x01", b"[" * 100_000, b"9" * 10_000],
    ids=["empty", "half", "yaml", "binary", "deep", "long number"],
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"'here/manifest\.json' is not JSON"):
        parse_manifest(text, "here/manifest.json")


@pytest.mark.parametrize("text", [b"null", b"[]", b"1", b'"text"', b"{}", b'{"name": "a web app"}'])
def test_json_that_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match="It is no manifest of edgewright"):
        parse_manifest(text, "here/manifest.json")


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_tolerance_that_decides_nothing_is_refused(document: Document, value: float) -> None:
    document["artefacts"][0]["parity"]["golden_tolerance"] = value
    with pytest.raises(BundleError, match="golden_tolerance"):
        parse(document)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("where", "place"),
    [
        (r"artefacts\.0\.drop", lambda document: (document["artefacts"][0], "drop")),
        (r"artefacts\.0\.p50_ms", lambda document: (document["artefacts"][0], "p50_ms")),
        (r"golden\.1\.logits\.2", lambda document: (document["golden"][1]["logits"], 2)),
        (r"metrics\.test_top1", lambda document: (document["metrics"], "test_top1")),
    ],
    ids=["drop", "p50_ms", "logits", "metrics"],
)
def test_number_that_is_not_finite_is_refused(
    document: Document, where: str, place: Callable[[Document], tuple[Any, Any]], value: float
) -> None:
    holder, key = place(document)
    holder[key] = value
    with pytest.raises(BundleError, match=where):
        parse(document)
