"""`edgewright compile`: which file is built, what is said of it, and what happens where it cannot work."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgewright.runtime.backends.openvino import OpenVinoBackend
from edgewright.runtime.bundle import Bundle, open_bundle
from edgewright.runtime.classifier import load_request
from edgewright.runtime.compile import compile_openvino, openvino_targets, tensorrt_target
from edgewright.runtime.compile_command import compile_command
from edgewright.runtime.errors import BackendError, BundleError, MissingExtraError, UsageError
from edgewright.runtime.openvino_cache import checked_cache

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(compile_command)


@pytest.fixture
def trt_bundle(tiny_copy: Path, reseal: Callable[..., None], models: dict[str, bytes]) -> Bundle:
    """The tiny bundle with what export makes for TensorRT, and an int8 artefact that is not for it."""
    new = {
        "model.fp16": ("onnxruntime", "fp16", None, "fp16"),
        "model.int8.trt": ("tensorrt", "int8", "trt", "int8"),
        "model.int8.ort-x86": ("onnxruntime", "int8", "ort-x86", "int8"),
    }
    for name, (*_, model) in new.items():
        (tiny_copy / "artefacts" / f"{name}.onnx").write_bytes(models[model])

    def change(document: dict[str, Any]) -> None:
        template = next(artefact for artefact in document["artefacts"] if artefact["name"] == "model.fp32")
        for name, (backend, precision, profile, model) in new.items():
            artefact = {**template, "name": name, "backend": backend, "precision": precision}
            artefact |= {"executed": precision, "profile": profile}
            artefact |= {"file": f"artefacts/{name}.onnx", "size_bytes": len(models[model])}
            document["artefacts"].append(artefact)

    reseal(tiny_copy, change)
    return open_bundle(tiny_copy)


def run(*arguments: str | Path, fails: type[Exception] | None = None) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if fails is not None:
        assert isinstance(result.exception, fails), result.output
        return result.exception
    assert result.exception is None, (result.output, result.exception)
    return result


# Which file


@pytest.mark.parametrize(
    ("artefact", "precision", "major", "expected"),
    [
        (None, None, 8, ("model.int8.trt", "int8")),
        (None, "fp16", 10, ("model.fp32", "fp16")),
        (None, "fp16", 11, ("model.fp16", "fp16")),
        (None, "fp32", 11, ("model.fp32", "fp32")),
        ("model.fp32", None, 10, ("model.fp32", "fp32")),
        ("model.fp32", "fp16", 10, ("model.fp32", "fp16")),
        ("model.fp16", None, 10, ("model.fp16", "fp16")),
        ("model.int8.trt", None, 11, ("model.int8.trt", "int8")),
    ],
)
def test_the_right_file_is_built(
    trt_bundle: Bundle, artefact: str | None, precision: str | None, major: int, expected: tuple[str, str]
) -> None:
    target = tensorrt_target(trt_bundle.manifest, artefact, precision, major)
    assert (target.artefact.name, target.precision) == expected


@pytest.mark.parametrize(
    ("artefact", "precision", "major", "message"),
    [
        ("openvino.fp32", None, 10, "made for openvino"),
        ("model.int8.ort-x86", None, 10, "TensorRT refuses"),
        ("model.fp32", "fp16", 11, "expected fp32"),
        ("model.fp32", "int8", 10, "expected fp16 or fp32"),
        (None, "bf16", 10, "bf16"),
    ],
)
def test_what_does_not_go_together_is_refused(
    trt_bundle: Bundle, artefact: str | None, precision: str | None, major: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tensorrt_target(trt_bundle.manifest, artefact, precision, major)


def test_bundle_without_a_suitable_file_says_how_to_get_one(tiny_opened: Bundle) -> None:
    assert tensorrt_target(tiny_opened.manifest, None, None, 10).precision == "fp16"
    with pytest.raises(UsageError, match="--formats onnx --precisions fp16"):
        tensorrt_target(tiny_opened.manifest, None, None, 11)
    with pytest.raises(UsageError, match="--formats tensorrt --precisions int8"):
        tensorrt_target(tiny_opened.manifest, None, "int8", 10)
    with pytest.raises(BundleError, match="No artefact 'other'"):
        tensorrt_target(tiny_opened.manifest, "other", None, 10)


# The command, for TensorRT


def test_command_builds_and_reports(device: Any, trt_bundle: Bundle) -> None:
    arguments = (trt_bundle.path, "--backend", "tensorrt", "--batch", "1,2,4", "--workspace-mb", "64", "--json")
    (engine,) = json.loads(run(*arguments).stdout)["engines"]
    assert (engine["artefact"], engine["precision"], engine["state"]) == ("model.int8.trt", "int8", "absent")
    assert (engine["gpu"], engine["tensorrt"]) == ("Orin", device.bindings.release.version)
    assert engine["batches"] == [1, 4]
    assert sum(engine["layers"].values()) == 1
    assert Path(engine["engine"]).stat().st_size == engine["size_bytes"]
    assert device.machine.builds_done[0]["workspace"] == 64 * 1024 * 1024
    assert device.machine.allocations == {}
    (again,) = json.loads(run(*arguments).stdout)["engines"]
    assert again["state"] == "fresh"
    (forced,) = json.loads(run(*arguments, "--force").stdout)["engines"]
    assert forced["state"] == "forced"
    assert len(device.machine.builds_done) == 2


def test_command_shows_a_table_and_the_next_step(device: Any, trt_bundle: Bundle) -> None:
    result = run(trt_bundle.path, "--backend", "tensorrt", "--precision", "fp16", "--dla", "1", "--hardware-compatible")
    assert result.stdout == ""
    assert device.machine.builds_done[0]["device"] == "DLA"
    assert device.machine.builds_done[0]["hardware"] == "AMPERE_PLUS"


def test_print_trtexec_builds_nothing(device: Any, trt_bundle: Bundle) -> None:
    line = run(trt_bundle.path, "--backend", "tensorrt", "--print-trtexec").stdout
    assert line.startswith(f"trtexec --onnx={trt_bundle.path}/artefacts/model.int8.trt.onnx")
    assert line.endswith(" --skipInference\n")
    assert ("--int8" in line) == (device.bindings.major < 11)
    assert "--maxShapes=pixels:16x16x16x3" in line
    assert device.machine.builds_done == []


def test_print_trtexec_needs_no_tensorrt(trt_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    options = (trt_bundle.path, "--backend", "tensorrt", "--precision", "fp16", "--print-trtexec")
    assert "model.fp32.onnx" in run(*options).stdout
    typed = json.loads(run(*options, "--trt-version", "11.4.0", "--json").stdout)
    assert typed["artefact"] == "model.fp16"
    assert "--fp16" not in typed["trtexec"]


def test_missing_tensorrt_names_the_extra(trt_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    error = run(trt_bundle.path, "--backend", "tensorrt", fails=MissingExtraError)
    assert "pip install 'edgewright[tensorrt]'" in str(error)
    assert error.exit_status == 2


def test_no_gpu_is_an_error(device: Any, trt_bundle: Bundle) -> None:
    device.machine.has_gpu = False
    assert "cudaErrorNoDevice" in str(run(trt_bundle.path, "--backend", "tensorrt", fails=BackendError))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "8,1,1"), "Batch sizes"),
        (("--precision", "fp32", "--dla", "0", "--trt-version", "10", "--print-trtexec"), "fp16 or int8"),
        (("--trt-version", "10"), "goes with --print-trtexec"),
        (("--trt-version", "newest", "--print-trtexec"), "no version"),
    ],
)
def test_bad_options_are_refused(trt_bundle: Bundle, options: tuple[str, ...], message: str) -> None:
    error = run(trt_bundle.path, "--backend", "tensorrt", *options, fails=(UsageError, BackendError))  # type: ignore[arg-type]
    assert message in str(error)


# OpenVINO


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_openvino_keeps_what_it_compiled(tiny_bundle: Path, cache: Path) -> None:
    (first,) = json.loads(run(tiny_bundle, "--backend", "openvino", "--json").stdout)["models"]
    assert (first["artefact"], first["state"]) == ("openvino.fp32", "absent")
    assert first["first_load_ms"] > 0
    assert list(Path(first["cache"]).glob("*.blob"))
    (again,) = json.loads(run(tiny_bundle, "--backend", "openvino", "--json").stdout)["models"]
    assert (again["state"], again["first_load_ms"]) == ("fresh", None)
    (forced,) = json.loads(run(tiny_bundle, "--backend", "openvino", "--force", "--json").stdout)["models"]
    assert forced["first_load_ms"] > 0


def test_altered_openvino_cache_is_thrown_away(tiny_opened: Bundle, cache: Path, capsys: Any) -> None:
    (artefact,) = openvino_targets(tiny_opened.manifest, None, None)
    folder = Path(compile_openvino(tiny_opened, artefact).cache)
    assert checked_cache(folder) == folder
    (blob,) = folder.glob("*.blob")
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert checked_cache(folder) is None
    assert not folder.exists()
    assert "was altered" in capsys.readouterr().err
    assert compile_openvino(tiny_opened, artefact).state == "absent"


def test_classifier_takes_what_was_compiled(tiny_opened: Bundle, cache: Path, capsys: Any) -> None:
    (artefact,) = openvino_targets(tiny_opened.manifest, None, None)
    request, pixels = load_request(tiny_opened, artefact), np.full((2, 16, 16, 3), 9, np.uint8)

    def answers() -> tuple[bool, bytes]:
        engine = OpenVinoBackend(request)
        found = bool(engine._single.compiled.get_property("LOADED_FROM_CACHE"))
        (logits,) = engine.run({"pixels": pixels})
        engine.close()
        return found, logits.tobytes()

    before = answers()
    assert not before[0]
    assert not cache.exists()
    folder = Path(compile_openvino(tiny_opened, artefact).cache)
    assert answers() == (True, before[1])
    next(folder.glob("*.blob")).write_bytes(b"altered")
    assert answers() == before
    assert "was altered" in capsys.readouterr().err


@pytest.mark.parametrize("record", [None, b"{", b"\xff" * 100_000], ids=["none", "broken", "huge"])
def test_openvino_cache_without_a_sound_record_is_not_used(
    tiny_opened: Bundle, cache: Path, record: bytes | None
) -> None:
    (artefact,) = openvino_targets(tiny_opened.manifest, None, None)
    folder = Path(compile_openvino(tiny_opened, artefact).cache)
    if record is None:
        (folder / "record.json").unlink()
    else:
        (folder / "record.json").write_bytes(record)
    assert checked_cache(folder) is None


def test_another_model_has_another_cache(tiny_opened: Bundle, other_bundle: Path, cache: Path) -> None:
    other = open_bundle(other_bundle)
    folders = {
        compile_openvino(bundle, openvino_targets(bundle.manifest, None, None)[0]).cache
        for bundle in (tiny_opened, other)
    }
    assert len(folders) == 2


def test_openvino_options_are_checked(tiny_opened: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such OpenVINO artefact"):
        openvino_targets(tiny_opened.manifest, "model.fp32", None)
    with pytest.raises(UsageError, match="no such OpenVINO artefact"):
        openvino_targets(tiny_opened.manifest, None, "int8")
    run(tiny_opened.path, "--backend", "openvino", "--dla", "0", fails=UsageError)
    shutil.rmtree(tmp_path, ignore_errors=True)
    run(tmp_path, "--backend", "openvino", fails=BundleError)
