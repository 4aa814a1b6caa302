"""Building, against the API of each version: a call that does not exist there fails here.

No GPU is needed and none is used: these tests prove that the code speaks to TensorRT as its real bindings allow, not that
an engine is fast or right. `test_gpu.py` does that where there is a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgewright.runtime.errors import BackendError
from edgewright.runtime.tensorrt.builder import build_engine
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.library import make_logger
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions
from edgewright.runtime.tensorrt.runner import EngineRunner


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_every_precision(device: Any, models: dict[str, bytes], precision: str, helpers: Any) -> None:
    built = build_engine(
        device.trt,
        helpers.onnx_for(device, models, precision),
        BuildOptions(precision),
        name="m",  # type: ignore[arg-type]
    )
    assert built.plan
    flags = device.machine.builds_done[-1]["flags"]
    wanted = {"fp16": ["FP16"], "int8": ["INT8"], "fp32": []}[precision]
    assert flags == (wanted if device.bindings.major < 11 else [])
    assert device.machine.builds_done[-1]["detailed"]


@pytest.mark.parametrize(
    ("timing", "dla", "version", "hardware"),
    list(itertools.product((True, False), (None, 1), (True, False), (True, False))),
)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_combination_of_options_builds_and_runs(
    device: Any,
    models: dict[str, bytes],
    precision: str,
    timing: bool,
    dla: int | None,
    version: bool,
    hardware: bool,
    helpers: Any,
) -> None:
    model = helpers.onnx_for(device, models, precision)
    options = BuildOptions(
        precision,  # type: ignore[arg-type]
        BatchProfile(1, 2, 4),
        64,
        timing,
        dla,
        version,
        hardware,
    )
    built = build_engine(device.trt, model, options, name="m")
    done = device.machine.builds_done[-1]
    assert ("DISABLE_TIMING_CACHE" in done["flags"]) == (not timing)
    assert (built.timing_cache is not None) == timing
    assert ("VERSION_COMPATIBLE" in done["flags"]) == version
    assert done["hardware"] == ("AMPERE_PLUS" if hardware else None)
    assert (done["dla"], done["device"]) == ((1, "DLA") if dla is not None else (None, None))
    assert ("GPU_FALLBACK" in done["flags"]) == (dla is not None)
    assert done["workspace"] == 64 * 1024 * 1024
    assert done["shapes"]["pixels"] == [(1, 16, 16, 3), (2, 16, 16, 3), (4, 16, 16, 3)]
    runner = EngineRunner(device.trt, load_cuda(), built.plan, name="m", dla=dla, host_code=version)
    pixels = helpers.pixels(3)
    np.testing.assert_allclose(runner.run({"pixels": pixels})[0], helpers.reference(model, pixels), atol=1e-3)
    runner.close()


def test_tf32_is_turned_off(device: Any, models: dict[str, bytes]) -> None:
    build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m")
    assert "TF32" not in device.machine.builds_done[-1]["flags"]


def test_timing_cache_is_given_on(device: Any, models: dict[str, bytes], capsys: Any) -> None:
    first = build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m")
    second = build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m", timing_cache=first.timing_cache)
    assert first.timing_cache is not None
    assert device.machine.builds_done[-1]["timings_known"] == first.timing_cache.decode()
    assert second.timing_cache == first.timing_cache + b"."
    assert "timing cache" not in capsys.readouterr().err


def test_timing_cache_of_another_gpu_is_not_used(device: Any, models: dict[str, bytes], capsys: Any) -> None:
    build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m", timing_cache=b"timings 1.0 Nano .")
    assert device.machine.builds_done[-1]["timings_known"] == ""
    assert "belongs to another GPU" in capsys.readouterr().err


def test_parser_errors_are_told(device: Any, network: Callable[..., onnx.ModelProto]) -> None:
    model = network()
    model.graph.node.append(onnx.helper.make_node("NonZero", ["logits"], ["where"], name="odd one"))
    with pytest.raises(BackendError, match="this operator is not supported") as raised:
        build_engine(device.trt, model.SerializeToString(), BuildOptions("fp32"), name="the odd model")
    assert "the odd model" in str(raised.value)
    assert ("NonZero 'odd one'" in str(raised.value)) == (device.bindings.major >= 10)


def test_bytes_that_are_no_onnx_are_refused(device: Any) -> None:
    with pytest.raises(BackendError, match="does not take 'junk'"):
        build_engine(device.trt, b"no model at all", BuildOptions("fp32"), name="junk")


def test_fp32_graph_is_refused_for_fp16_where_the_graph_decides(device: Any, models: dict[str, bytes]) -> None:
    if device.bindings.major < 11:
        build_engine(device.trt, models["fp32"], BuildOptions("fp16"), name="m")
        assert device.machine.builds_done[-1]["flags"] == ["FP16"]
        return
    with pytest.raises(BackendError, match=r"takes the precision from the graph alone.*model\.fp16"):
        build_engine(device.trt, models["fp32"], BuildOptions("fp16"), name="m")


def test_graph_without_quantization_is_refused_for_int8(device: Any, models: dict[str, bytes]) -> None:
    with pytest.raises(BackendError, match="no QuantizeLinear nodes"):
        build_engine(device.trt, models["fp32"], BuildOptions("int8"), name="m")


def test_fp16_graph_is_refused_for_fp32(device: Any, models: dict[str, bytes]) -> None:
    with pytest.raises(BackendError, match="computes in fp16, not in fp32"):
        build_engine(device.trt, models["fp16"], BuildOptions("fp32"), name="m")


def test_fp16_graph_builds_in_fp16_everywhere(device: Any, models: dict[str, bytes]) -> None:
    assert build_engine(device.trt, models["fp16"], BuildOptions("fp16"), name="m").plan


def test_failed_build_says_why_and_what_to_do(device: Any, models: dict[str, bytes]) -> None:
    device.machine.builds = False
    with pytest.raises(BackendError, match=r"could not find any implementation.*--workspace-mb"):
        build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m")


def test_missing_dla_core_is_told(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    device.machine.dla_cores = 0
    model = helpers.onnx_for(device, models, "fp16")
    with pytest.raises(BackendError, match=r"DLA core 0 was asked for; .* finds 0 here"):
        build_engine(device.trt, model, BuildOptions("fp16", dla=0), name="m")


def test_no_gpu_is_told(device: Any, models: dict[str, bytes]) -> None:
    device.machine.has_gpu = False
    with pytest.raises(BackendError, match="cannot start here"):
        build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m")
    with pytest.raises(BackendError, match="cudaErrorNoDevice"):
        load_cuda().device()


def test_logger_keeps_all_and_shows_errors_only(device: Any, capsys: Any) -> None:
    logger = make_logger(device.trt)
    logger.log(device.trt.ILogger.INFO, "by the way")
    logger.log(device.trt.ILogger.ERROR, "on fire")
    assert list(logger.messages) == ["by the way", "on fire"]
    assert list(logger.errors) == ["on fire"]
    shown = capsys.readouterr().err
    assert "on fire" in shown
    assert "by the way" not in shown
