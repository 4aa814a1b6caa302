"""Engines on the device: used when they are right, explained and built again when they are not."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.runtime.backends import EngineSettings, LoadRequest, load_backend
from edgewright.runtime.device_cache import device_cache
from edgewright.runtime.errors import BackendError, MissingExtraError, UsageError
from edgewright.runtime.tensorrt.cache import EngineCache, make_key
from edgewright.runtime.tensorrt.cuda import GpuDevice, load_cuda
from edgewright.runtime.tensorrt.engines import PreparedEngine, prepare_engine
from edgewright.runtime.tensorrt.fallback import load_or_fall_back
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions

GPU = GpuDevice(0, "Orin", "8.7", "12.6")
OPTIONS = BuildOptions("fp32", BatchProfile(1, 2, 4))


@pytest.fixture
def one_device(move: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A machine with TensorRT 10.3 and an empty device cache."""
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    return move("10.3.0")


def prepare(device: Any, model: bytes, options: BuildOptions = OPTIONS, **more: Any) -> PreparedEngine:
    prepared = prepare_engine(device.trt, load_cuda(), model, options, name="the model", **more)
    pixels = np.full((3, 16, 16, 3), 7, np.uint8)
    assert prepared.runner.run({"pixels": pixels})[0].shape == (3, 4)
    prepared.runner.close()
    return prepared


def engine_file(prepared: PreparedEngine) -> Path:
    return EngineCache().engine_file(prepared.record.key)


def test_engine_is_built_once(one_device: Any, models: dict[str, bytes]) -> None:
    assert [prepare(one_device, models["fp32"]).state for _ in range(3)] == ["absent", "fresh", "fresh"]
    assert len(one_device.machine.builds_done) == 1


def test_force_builds_again_with_the_known_timings(one_device: Any, models: dict[str, bytes]) -> None:
    prepare(one_device, models["fp32"])
    assert prepare(one_device, models["fp32"], force=True).state == "forced"
    assert one_device.machine.builds_done[1]["timings_known"].startswith("timings 10.3.0 Orin")


def test_timings_are_not_kept_if_not_wanted(one_device: Any, models: dict[str, bytes]) -> None:
    prepare(one_device, models["fp32"], BuildOptions("fp32", timing_cache=False))
    assert not (device_cache("tensorrt") / "timing").exists()


def test_other_options_are_told_and_built(one_device: Any, models: dict[str, bytes], capsys: Any) -> None:
    prepare(one_device, models["fp32"])
    prepared = prepare(one_device, models["fp32"], BuildOptions("fp32", BatchProfile(1, 4, 8), 256))
    assert prepared.state == "stale"
    assert prepared.reason == "batch sizes was 1,2,4, is 1,4,8; workspace (MiB) was 1024, is 256"
    assert prepared.reason in capsys.readouterr().err


def test_running_takes_an_engine_as_it_was_compiled(one_device: Any, models: dict[str, bytes]) -> None:
    prepare(one_device, models["fp32"])
    prepared = prepare(one_device, models["fp32"], BuildOptions("fp32"), as_built=True)
    assert (prepared.state, prepared.record.key.batch) == ("fresh", (1, 2, 4))


def test_another_tensorrt_is_told_and_builds_again_as_compiled(
    one_device: Any, move: Callable[[str], Any], models: dict[str, bytes], capsys: Any
) -> None:
    prepare(one_device, models["fp32"])
    newer = move("10.13.3.9")
    prepared = prepare(newer, models["fp32"], BuildOptions("fp32"), as_built=True)
    assert (prepared.state, prepared.reason) == ("stale", "TensorRT was 10.3.0, is 10.13.3.9")
    assert prepared.record.key.batch == (1, 2, 4)
    assert "TensorRT was 10.3.0, is 10.13.3.9" in capsys.readouterr().err


def test_engine_of_another_gpu_is_foreign(one_device: Any, models: dict[str, bytes]) -> None:
    prepare(one_device, models["fp32"])
    one_device.machine.gpu, one_device.machine.capability = "Thor", (11, 0)
    prepared = prepare(one_device, models["fp32"])
    assert prepared.state == "foreign"
    assert prepared.reason == "GPU was Orin, is Thor; compute capability was 8.7, is 11.0"


def test_another_driver_is_told(one_device: Any, models: dict[str, bytes]) -> None:
    prepare(one_device, models["fp32"])
    one_device.machine.driver = 12080
    assert prepare(one_device, models["fp32"]).reason == "CUDA was 12.6, is 12.8"


def test_version_compatible_engine_outlives_an_upgrade(
    one_device: Any, move: Callable[[str], Any], models: dict[str, bytes]
) -> None:
    options = BuildOptions("fp32", OPTIONS.batch, version_compatible=True)
    prepare(one_device, models["fp32"], options)
    assert prepare(move("10.13.3.9"), models["fp32"], options).state == "fresh"
    # Not the other way round: an older runtime does not read it.
    assert prepare(move("8.6.1"), models["fp32"], options).state == "stale"


def test_hardware_compatible_engine_moves_to_another_ampere(one_device: Any, models: dict[str, bytes]) -> None:
    options = BuildOptions("fp32", OPTIONS.batch, hardware_compatible=True)
    prepare(one_device, models["fp32"], options)
    one_device.machine.gpu, one_device.machine.capability = "RTX A2000", (8, 6)
    assert prepare(one_device, models["fp32"], options).state == "fresh"
    one_device.machine.gpu, one_device.machine.capability = "Xavier", (7, 2)
    assert prepare(one_device, models["fp32"], options).state == "foreign"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda engine: engine.write_bytes(engine.read_bytes()[:-1]), "bytes, expected"),
        (lambda engine: engine.write_bytes(b"x" + engine.read_bytes()[1:]), "SHA-256"),
        (lambda engine: engine.unlink(), "its file cannot be read"),
        (lambda engine: engine.with_suffix(".json").unlink(), "no record"),
        (lambda engine: engine.with_suffix(".json").write_text("{"), "no such record"),
        (lambda engine: engine.with_suffix(".json").write_bytes(b"\xff" * 100_000), "no such record"),
    ],
    ids=["short", "altered", "gone", "no record", "broken record", "huge record"],
)
def test_damage_is_told_and_repaired(
    one_device: Any, models: dict[str, bytes], capsys: Any, damage: Callable[[Path], object], reason: str
) -> None:
    damage(engine_file(prepare(one_device, models["fp32"])))
    prepared = prepare(one_device, models["fp32"])
    assert prepared.state == "corrupt"
    assert reason in prepared.reason
    assert "is corrupt" in capsys.readouterr().err
    assert prepare(one_device, models["fp32"]).state == "fresh"


def test_record_with_unknown_fields_is_not_read(one_device: Any, models: dict[str, bytes]) -> None:
    record = engine_file(prepare(one_device, models["fp32"])).with_suffix(".json")
    document = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**document, "command": "anything"}), encoding="utf-8")
    assert prepare(one_device, models["fp32"]).state == "corrupt"


def test_engine_that_tensorrt_refuses_is_built_again(one_device: Any, models: dict[str, bytes], capsys: Any) -> None:
    prepared = prepare(one_device, models["fp32"])
    cache = EngineCache()
    key = prepared.record.key
    cache.store(cache.record(key, b"signed, but no engine", 0), b"signed, but no engine")
    again = prepare(one_device, models["fp32"])
    assert again.state == "corrupt"
    assert "the engine is damaged" in capsys.readouterr().err


def test_cache_that_cannot_be_written_is_no_failure(
    one_device: Any, models: dict[str, bytes], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    assert prepare(one_device, models["fp32"]).state == "absent"
    assert "cannot be kept" in capsys.readouterr().err


def test_each_precision_has_an_engine_of_its_own() -> None:
    keys = [make_key(b"model", BuildOptions(precision), GPU, "10.3.0") for precision in ("fp32", "fp16")]  # type: ignore[arg-type]
    cache = EngineCache(Path("anywhere"))
    assert len({cache.engine_file(key) for key in keys}) == 2


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "own"))
    assert device_cache("tensorrt") == tmp_path / "own" / "tensorrt"
    monkeypatch.delenv("EDGEWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert device_cache("tensorrt") == tmp_path / "xdg" / "edgewright" / "tensorrt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert device_cache("tensorrt") == Path.home() / ".cache" / "edgewright" / "tensorrt"


# When TensorRT cannot


def request_for(models: dict[str, bytes], precision: str = "int8") -> LoadRequest:
    return LoadRequest(models[precision], None, precision, EngineSettings(threads=1), "model.int8.trt")


def test_onnx_runtime_takes_over_without_a_gpu(one_device: Any, models: dict[str, bytes]) -> None:
    one_device.machine.has_gpu = False
    with pytest.warns(RuntimeWarning, match=r"TensorRT cannot run 'model\.int8\.trt' here: .*cudaErrorNoDevice"):
        backend, name = load_or_fall_back(request_for(models))
    assert name == "onnxruntime"
    assert backend.run({"pixels": np.zeros((2, 16, 16, 3), np.uint8)})[0].shape == (2, 4)
    backend.close()


def test_onnx_runtime_takes_over_when_the_build_fails(one_device: Any, models: dict[str, bytes]) -> None:
    one_device.machine.builds = False
    with pytest.warns(RuntimeWarning, match="could not find any implementation"):
        _, name = load_or_fall_back(request_for(models))
    assert name == "onnxruntime"


def test_onnx_runtime_takes_over_without_tensorrt(models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.warns(RuntimeWarning, match=r"pip install 'edgewright\[tensorrt\]'"):
        _, name = load_or_fall_back(request_for(models))
    assert name == "onnxruntime"


def test_another_artefact_may_take_over(models: dict[str, bytes]) -> None:
    instead = LoadRequest(models["fp32"], None, "fp32", EngineSettings(threads=1), "model.fp32")
    with pytest.warns(RuntimeWarning, match=r"ONNX Runtime runs 'model\.fp32' instead"):
        load_or_fall_back(request_for(models), lambda: instead)


def test_nothing_is_said_where_tensorrt_runs(one_device: Any, models: dict[str, bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Nor is anything read that will not be needed.
        backend, name = load_or_fall_back(request_for(models), lambda: pytest.fail("read for nothing"))
    assert name == "tensorrt"
    backend.close()


def test_model_that_nobody_takes_is_an_error(one_device: Any) -> None:
    with pytest.raises(BackendError, match="ONNX Runtime cannot load"):
        load_or_fall_back(LoadRequest(b"junk", None, "fp32", EngineSettings(threads=1), "junk"))


def test_missing_tensorrt_names_the_extra(models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"edgewright\[tensorrt\]"):
        load_backend("tensorrt", request_for(models))


def test_precision_that_engines_do_not_have_is_refused(models: dict[str, bytes]) -> None:
    with pytest.raises(UsageError, match="bf16"):
        load_backend("tensorrt", LoadRequest(models["fp32"], None, "bf16", EngineSettings(threads=1), "m"))
