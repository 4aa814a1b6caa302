"""TensorRT for real: engines are built and run on the GPU of this machine. Skipped, with the reason, where there is none.

Passing here is the proof that the tests against the API alone cannot give.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgewright.runtime.errors import BackendError, EdgewrightError
from edgewright.runtime.tensorrt.cache import EngineCache
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.engines import PreparedEngine, prepare_engine
from edgewright.runtime.tensorrt.library import load_tensorrt, parse_version
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions

pytestmark = pytest.mark.tensorrt

# Logits of the tiny network are of the order of 1; half precision has 11 bits.
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": 5e-2}


@pytest.fixture(scope="module")
def real_trt() -> Any:
    """The module `tensorrt` of a machine that can use it."""
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("TensorRT is not installed here")
    try:
        trt = load_tensorrt()
        load_cuda().device()
    except EdgewrightError as error:
        pytest.skip(f"no GPU with TensorRT here: {error}")
    return trt


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def model_for(trt: Any, models: dict[str, bytes], precision: str) -> bytes:
    typed = parse_version(trt.__version__)[0] >= 11
    return models["fp32" if precision == "fp16" and not typed else precision]


def prepare(trt: Any, model: bytes, options: BuildOptions, cache: EngineCache) -> PreparedEngine:
    return prepare_engine(trt, load_cuda(), model, options, name="the model", cache=cache)


def pixels(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine_agrees_with_onnx_runtime(
    real_trt: Any, models: dict[str, bytes], cache: EngineCache, precision: Any
) -> None:
    model = model_for(real_trt, models, precision)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    prepared = prepare(real_trt, model, BuildOptions(precision, BatchProfile(1, 2, 4)), cache)
    for count in (1, 2, 4, 7):
        expected = session.run(None, {"pixels": pixels(count)})[0]
        (found,) = prepared.runner.run({"pixels": pixels(count)})
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision])
    prepared.runner.close()


def test_engine_is_kept_and_damage_is_found(real_trt: Any, models: dict[str, bytes], cache: EngineCache) -> None:
    options = BuildOptions("fp32", BatchProfile(1, 1, 2))
    states = []
    for _ in range(2):
        prepared = prepare(real_trt, models["fp32"], options, cache)
        prepared.runner.close()
        states.append(prepared.state)
    file = cache.engine_file(prepared.record.key)
    file.write_bytes(file.read_bytes()[:-7])
    prepared = prepare(real_trt, models["fp32"], options, cache)
    prepared.runner.close()
    assert [*states, prepared.state] == ["absent", "fresh", "corrupt"]
    assert cache.timing_file(prepared.record.key).stat().st_size > 0


def test_layers_and_their_times_are_told(real_trt: Any, models: dict[str, bytes], cache: EngineCache) -> None:
    prepared = prepare(real_trt, models["fp32"], BuildOptions("fp32"), cache)
    layers = prepared.runner.layers()
    assert {"pixels", "logits"} <= set(layers.tensors)
    assert len(layers.layers) > 0
    times = prepared.runner.layer_times({"pixels": pixels(1)}, repeats=5)
    assert len(times) > 0
    assert all(milliseconds >= 0 for milliseconds in times.values())
    prepared.runner.close()


@pytest.mark.parametrize("options", [{"version_compatible": True}, {"hardware_compatible": True}], ids=str)
def test_compatible_engines_run(
    real_trt: Any, models: dict[str, bytes], cache: EngineCache, options: dict[str, Any]
) -> None:
    """Not every platform has these; where TensorRT refuses, it has to say so in words."""
    try:
        prepared = prepare(real_trt, models["fp32"], BuildOptions("fp32", **options), cache)
    except BackendError as error:
        pytest.skip(f"refused here: {error}")
    assert prepared.runner.run({"pixels": pixels(1)})[0].shape == (1, 4)
    prepared.runner.close()
