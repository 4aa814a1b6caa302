"""The real bindings of five versions of TensorRT, without a GPU, and machines made from them.

The wheels come from the configured package index and are unpacked below pytest's cache, once. They are imported over stub
libraries that define the symbols they link to, in a process of its own, to be described; from the description a strict
fake is made. Nothing of this is part of the repository.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SECONDS = 300

SYMBOLS = {
    "libnvinfer": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvonnxparser": (
        *("createNvOnnxParser_INTERNAL", "getNvOnnxParserVersion", "createNvOnnxParserRefitter_INTERNAL"),
    ),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
    "libnvparsers": (
        *("_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi"),
        *("_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv"),
    ),
}


@dataclass(frozen=True)
class Release:
    """A version of TensorRT, its wheel, and the cuda-python that goes with it."""

    version: str
    wheel: str
    cuda: tuple[str, ...]
    cuda_module: str


OLD_CUDA = ("cuda-python==12.2.1",)
CUDA_12 = ("cuda-bindings==12.9.10", "cuda-pathfinder==1.9.0")
CUDA_13 = ("cuda-bindings==13.5.0", "cuda-pathfinder==1.9.0")
RELEASES = {
    release.version: release
    for release in (
        Release("8.6.1", "tensorrt-bindings==8.6.1", OLD_CUDA, "cuda.cudart"),
        Release("10.3.0", "tensorrt-cu12-bindings==10.3.0", OLD_CUDA, "cuda.cudart"),
        Release("10.9.0.34", "tensorrt-cu12-bindings==10.9.0.34", CUDA_12, "cuda.bindings.runtime"),
        Release("10.13.3.9", "tensorrt-cu12-bindings==10.13.3.9", CUDA_12, "cuda.bindings.runtime"),
        Release("11.4.0.106", "tensorrt-cu13-bindings==11.4.0.106", CUDA_13, "cuda.bindings.runtime"),
    )
}


def helper_module(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tensorrt_tests_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


strict_fake = helper_module("strict_fake")
fake_device = helper_module("fake_device")
fake_tensorrt = helper_module("fake_tensorrt")


def install(requirements: tuple[str, ...], folder: Path) -> Path:
    """Unpack wheels into `folder`, unless they are there."""
    if folder.is_dir():
        return folder
    # Its own name: another process of the tests may be about to make the same folder.
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _unpack(requirements, new)
        # The other one's folder may have appeared since, and a folder that is not empty is not replaced.
        with contextlib.suppress(OSError):
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    assert folder.is_dir()
    return folder


def _unpack(requirements: tuple[str, ...], folder: Path) -> None:
    """Fetch wheels and put what is in them into `folder`."""
    options = ["--no-deps", "--target", str(folder), "--only-binary", ":all:", *requirements]
    uv = shutil.which("uv")
    if uv is not None:
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *options]
    elif importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", *options]
    else:
        pytest.skip("needs uv or pip to fetch the bindings")
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the index did not answer within {SECONDS} s")
    if found.returncode != 0:
        pytest.skip(f"the index has no {' '.join(requirements)} for this Python: {found.stderr.strip()[-300:]}")


def stub_libraries(major: int, folder: Path) -> Path:
    """Libraries with the names and symbols that the bindings link to; each function returns 0."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stub libraries")
    folder.mkdir(parents=True, exist_ok=True)
    for library, symbols in SYMBOLS.items():
        file = folder / f"{library}.so.{major}"
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols), encoding="utf-8")
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file.name}", "-o", str(file), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


def describe(folder: Path, module: str, out: Path, libraries: Path | None) -> dict[str, Any]:
    """What `bindings_dump.py` finds, in a process of its own."""
    if not out.is_file():
        environment = os.environ | ({} if libraries is None else {"LD_LIBRARY_PATH": str(libraries)})
        # As with the folder: its own name, and whole when it gets the other one.
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as temporary:
            new = Path(temporary) / out.name
            command = [sys.executable, str(HERE / "bindings_dump.py"), str(folder), module, str(new)]
            found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
            assert found.returncode == 0, found.stderr
            new.replace(out)
    described: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return described


@dataclass(frozen=True)
class Bindings:
    """Real bindings on disk, and their descriptions."""

    release: Release
    folder: Path
    libraries: Path
    cuda_folder: Path
    tensorrt: dict[str, Any]
    cuda: dict[str, Any]

    @property
    def major(self) -> int:
        return int(self.release.version.partition(".")[0])


@pytest.fixture(scope="session")
def real_bindings(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bindings]:
    """`real_bindings("10.3.0")`: fetched, stubbed and described; skips where the index or a compiler is missing."""
    assert pytestconfig.cache is not None
    tag = f"{sys.implementation.cache_tag}-{hashlib.sha256((HERE / 'bindings_dump.py').read_bytes()).hexdigest()[:12]}"
    root = pytestconfig.cache.mkdir("tensorrt-bindings") / tag
    root.mkdir(exist_ok=True)
    known: dict[str, Bindings] = {}

    def fetch(version: str) -> Bindings:
        if sys.platform != "linux":
            pytest.skip("the stub libraries are for Linux")
        if version not in known:
            release = RELEASES[version]
            folder = install((release.wheel,), root / release.wheel.replace("==", "-"))
            cuda_folder = install(release.cuda, root / "-".join(release.cuda).replace("==", "-"))
            major = int(version.partition(".")[0])
            libraries = stub_libraries(major, tmp_path_factory.mktemp(f"stubs-{version}"))
            trt = describe(folder, "tensorrt_bindings", root / f"tensorrt-{version}.json", libraries)
            cuda = describe(cuda_folder, release.cuda_module, root / f"{cuda_folder.name}.json", None)
            known[version] = Bindings(release, folder, libraries, cuda_folder, trt, cuda)
        return known[version]

    return fetch


@pytest.fixture(params=RELEASES)
def bindings(request: pytest.FixtureRequest, real_bindings: Callable[[str], Bindings]) -> Bindings:
    """The real bindings, one version after the other."""
    return real_bindings(request.param)


@dataclass(frozen=True)
class Device:
    """A machine whose `tensorrt` and CUDA are strict fakes of one version's real bindings."""

    machine: Any
    trt: Any
    cuda: Any
    bindings: Bindings


_made: dict[str, tuple[Any, Any, Any]] = {}


def make_device(bindings: Bindings, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Put the fakes where `import tensorrt` and `import cuda.…` find them; each test starts with a machine as new."""
    version = bindings.release.version
    if version not in _made:
        machine = fake_device.Machine()
        trt = strict_fake.Fake(bindings.tensorrt, fake_tensorrt.tensorrt_behaviours(machine, lambda: _made[version][1]))
        cuda = strict_fake.Fake(bindings.cuda, fake_device.cuda_behaviours(machine, lambda: _made[version][2]))
        _made[version] = (machine, trt, cuda)
    machine, trt, cuda = _made[version]
    machine.__init__()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    tree = fake_device.module_tree(bindings.release.cuda_module, cuda.module)
    for name, module in {"tensorrt": trt.module, **tree}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return Device(machine, trt.module, cuda.module, bindings)


@pytest.fixture
def device(bindings: Bindings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    """A machine of each version, with an empty device cache."""
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    return make_device(bindings, monkeypatch)


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch, real_bindings: Callable[[str], Bindings]) -> Callable[[str], Device]:
    """`move("10.13.3.9")`: the same device cache, another version of TensorRT."""
    return lambda version: make_device(real_bindings(version), monkeypatch)


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its scaled input quantized as TensorRT wants it: int8, symmetric, zero point 0."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(1 / 127), "q_scale"),
            numpy_helper.from_array(np.int8(0), "q_zero"),
        ]
    )
    nodes = list(graph.node)
    place = next(index for index, node in enumerate(nodes) if node.op_type == "Conv")
    added = [
        helper.make_node("QuantizeLinear", ["scaled", "q_scale", "q_zero"], ["scaled_q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["scaled_q", "q_scale", "q_zero"], ["scaled_dq"], name="dequantize"),
    ]
    nodes[place].input[0] = "scaled_dq"
    del graph.node[:]
    graph.node.extend([*nodes[:place], *added, *nodes[place:]])
    onnx.checker.check_model(copy, full_check=True)
    return copy


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in fp16 with its uint8 input and its float32 output kept."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = TensorProto.FLOAT16
        if node.output[0] == "logits":
            node.output[0] = "logits_half"
    graph.node.append(helper.make_node("Cast", ["logits_half"], ["logits"], to=TensorProto.FLOAT))
    onnx.checker.check_model(copy, full_check=True)
    return copy


@pytest.fixture(scope="session")
def models(network: Callable[..., onnx.ModelProto]) -> dict[str, bytes]:
    """The tiny network as it is exported: fp32, fp16 and int8 for TensorRT."""
    model = network()
    return {
        "fp32": model.SerializeToString(),
        "fp16": halved(model).SerializeToString(),
        "int8": quantized(model).SerializeToString(),
    }


def pixels(count: int) -> npt.NDArray[np.uint8]:
    """A batch for the tiny network, uint8 (count, 16, 16, 3)."""
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def reference(model: bytes, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What ONNX Runtime makes of it, float32 (count, 4)."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": batch})[0]  # type: ignore[no-any-return]


def onnx_for(device: Device, models: dict[str, bytes], precision: str) -> bytes:
    """The file that is built in this precision by this version: fp16 has to be in the graph from 11 on."""
    return models["fp32" if precision == "fp16" and device.bindings.major < 11 else precision]


@pytest.fixture(scope="session")
def helpers() -> ModuleType:
    """This module: `helpers.strict_fake`, `helpers.RELEASES`, `helpers.pixels(3)`, `helpers.reference(model, pixels)`…"""
    return sys.modules[__name__]
