"""What `tune` remembers, and when it is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.runtime import tuned
from edgewright.runtime.bundle import Bundle, open_bundle
from edgewright.runtime.tuned import (
    TunedChoice,
    device_fingerprint,
    forget_choice,
    keep_choice,
    manifest_sha256,
    tuned_choice,
)


@pytest.fixture
def kept(tiny_opened: Bundle, tmp_path: Path) -> Path:
    choice = TunedChoice(
        bundle="tiny",
        manifest_sha256=manifest_sha256(tiny_opened.manifest),
        fingerprint=device_fingerprint(),
        artefact="model.fp32",
        threads=1,
        p50_ms=0.5,
        tuned_at="2026-01-01T00:00:00+00:00",
    )
    return keep_choice(choice, tiny_opened.manifest, tmp_path)


def test_choice_comes_back(kept: Path, tiny_opened: Bundle, tmp_path: Path) -> None:
    found = tuned_choice(tiny_opened.manifest, tmp_path)
    assert found is not None
    assert (found.artefact, found.threads) == ("model.fp32", 1)
    assert forget_choice(tiny_opened.manifest, tmp_path)
    assert not forget_choice(tiny_opened.manifest, tmp_path)
    assert tuned_choice(tiny_opened.manifest, tmp_path) is None


def test_choice_of_another_bundle_is_none(kept: Path, other_bundle: Path, tmp_path: Path) -> None:
    assert tuned_choice(open_bundle(other_bundle).manifest, tmp_path) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": {"cpu": "another"}}, "does not hold any more"),
        ({"manifest_sha256": "0" * 64}, "is of another bundle"),
        ({"artefact": "model.int4"}, "is of another bundle"),
        ({"threads": 0}, "is damaged"),
        ({"surprise": 1}, "is damaged"),
    ],
)
def test_choice_that_does_not_hold_is_told_and_passed_over(
    kept: Path,
    tiny_opened: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    said: str,
) -> None:
    kept.write_text(json.dumps(json.loads(kept.read_text()) | change))
    assert tuned_choice(tiny_opened.manifest, tmp_path) is None
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b" " * 70_000])
def test_damaged_file_is_told_and_passed_over(
    kept: Path, tiny_opened: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    kept.write_bytes(content)
    assert tuned_choice(tiny_opened.manifest, tmp_path) is None
    assert "is damaged" in " ".join(capsys.readouterr().err.split())


def test_new_engine_ends_a_choice(
    kept: Path,
    tiny_opened: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tuned, "_version", lambda package: "99.0" if package == "openvino" else None)
    assert tuned_choice(tiny_opened.manifest, tmp_path) is None
    assert "is 99.0" in " ".join(capsys.readouterr().err.split())
