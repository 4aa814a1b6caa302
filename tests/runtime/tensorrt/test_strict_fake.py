"""The strict fake has to be able to say no, and the real bindings have to take our classes, as far as they go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright.runtime.tensorrt.builder import build_engine
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.library import make_logger
from edgewright.runtime.tensorrt.options import BuildOptions
from edgewright.runtime.tensorrt.runner import EngineRunner

# The fake itself: it has to be able to say no


def test_fake_knows_what_each_version_has(device: Any) -> None:
    major = device.bindings.major
    assert device.trt.__version__ == device.bindings.release.version
    assert hasattr(device.trt.ICudaEngine, "num_bindings") == (major == 8)
    assert hasattr(device.trt.IExecutionContext, "execute_async_v2") == (major == 8)
    assert hasattr(device.trt.BuilderFlag, "FP16") == (major < 11)
    assert hasattr(device.trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") == (major < 11)
    assert hasattr(device.trt.ParserError, "node_name") == (major >= 10)


def test_fake_refuses_what_the_version_has_not(device: Any, models: dict[str, bytes]) -> None:
    plan = build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m").plan
    runner = EngineRunner(device.trt, load_cuda(), plan, name="m", dla=None, host_code=False)
    logger = make_logger(device.trt)
    builder = device.trt.Builder(logger)
    config = builder.create_builder_config()
    with pytest.raises(AttributeError):
        device.trt.BuilderFlag.FP17  # noqa: B018
    with pytest.raises(AttributeError):
        config.workspace = 1
    with pytest.raises(TypeError, match="incompatible function arguments"):
        config.set_flag(3)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        config.set_flag(flags=device.trt.BuilderFlag.TF32)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        builder.create_network("explicit")
    with pytest.raises(TypeError, match="No constructor"):
        device.trt.IBuilderConfig()
    if device.bindings.major >= 10:
        with pytest.raises(AttributeError):
            runner._engine.num_bindings  # noqa: B018
    if device.bindings.major >= 11:
        with pytest.raises(AttributeError):
            device.trt.BuilderFlag.FP16  # noqa: B018
    runner.close()


def test_fake_demands_that_the_base_is_initialised(device: Any) -> None:
    class Forgetful(device.trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="incompatible"):
        device.trt.Builder(Forgetful())


def test_fake_cuda_is_as_strict(device: Any) -> None:
    with pytest.raises(AttributeError):
        device.cuda.cudaMallocPinned(4)
    with pytest.raises(TypeError, match="incompatible"):
        device.cuda.cudaMalloc("4")
    with pytest.raises(TypeError, match="incompatible"):
        device.cuda.cudaMemcpyAsync(1, 2, 3, 1.5, 0)


def test_most_signatures_of_the_real_bindings_are_understood(bindings: Any, helpers: Any) -> None:
    texts = [
        text
        for described in bindings.tensorrt["classes"].values()
        for name, member in described["members"].items()
        for text in member.get("signatures", ())
        if name != "__init__" or described["constructible"]
    ]
    understood = 0
    for text in texts:
        signature = helpers.strict_fake.parse_signature(text)
        understood += all(parameter.name.isidentifier() for parameter in signature.parameters)
    assert len(texts) > 500
    assert understood / len(texts) > 0.97


def test_every_behaviour_of_the_fake_is_a_real_call(real_bindings: Callable[[str], Any], helpers: Any) -> None:
    versions = [real_bindings(version) for version in helpers.RELEASES]
    real = set()
    for found in versions:
        real |= {
            f"{name}.{member}"
            for name, described in found.tensorrt["classes"].items()
            for member in described["members"]
        }
        real |= set(found.cuda["functions"])
    machine = helpers.fake_device.Machine()
    written = {
        *helpers.fake_tensorrt.tensorrt_behaviours(machine, lambda: None),
        *helpers.fake_device.cuda_behaviours(machine, lambda: None),
    }
    assert written <= real


# The real bindings, as far as they go without a GPU


def run_with_real_bindings(bindings: Any, code: str, tmp_path: Path) -> str:
    """Run `code` where `import tensorrt` gives the real bindings over the stubs."""
    (tmp_path / "tensorrt.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n", encoding="utf-8"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "LD_LIBRARY_PATH": str(bindings.libraries),
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, bindings.folder, bindings.cuda_folder))),
    }
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_real_bindings_take_our_logger_and_say_that_there_is_no_gpu(
    bindings: Any, tmp_path: Path, models: dict[str, bytes]
) -> None:
    (tmp_path / "model.onnx").write_bytes(models["fp32"])
    code = (
        "import sys\n"
        "from edgewright.runtime.tensorrt.library import load_tensorrt, make_logger\n"
        "from edgewright.runtime.tensorrt.layers import make_profiler\n"
        "from edgewright.runtime.tensorrt.builder import build_engine\n"
        "from edgewright.runtime.tensorrt.options import BuildOptions\n"
        "from edgewright.runtime.errors import BackendError\n"
        "trt = load_tensorrt()\n"
        "logger = make_logger(trt)\n"
        "logger.log(trt.ILogger.ERROR, 'shown')\n"
        "profiler = make_profiler(trt)\n"
        "profiler.report_layer_time('a', 0.5)\n"
        "assert profiler.medians() == {'a': 0.5}, profiler.medians()\n"
        "assert tuple(trt.Dims((2, 16, 3))) == (2, 16, 3)\n"
        f"model = open({str(tmp_path / 'model.onnx')!r}, 'rb').read()\n"
        "try:\n"
        "    build_engine(trt, model, BuildOptions('fp32'), name='m')\n"
        "except BackendError as error:\n"
        "    print(trt.__version__, error)\n"
    )
    found = run_with_real_bindings(bindings, code, tmp_path)
    assert found.startswith(bindings.release.version)
    assert "cannot start here" in found


def test_real_cuda_python_says_that_there_is_no_gpu(bindings: Any, tmp_path: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU here")
    code = (
        "from edgewright.runtime.tensorrt.cuda import load_cuda\n"
        "from edgewright.runtime.errors import BackendError\n"
        "cuda = load_cuda()\n"
        "print(cuda._module.__name__)\n"
        "try:\n"
        "    cuda.device()\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    name, message = run_with_real_bindings(bindings, code, tmp_path).splitlines()
    assert name == bindings.release.cuda_module
    assert "CUDA" in message
    assert "Expected an NVIDIA GPU and" in message
