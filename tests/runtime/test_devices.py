"""Devices by name: what a machine has, what it has not, and which one really was taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import openvino as ov
import pytest

from edgewright.runtime.backends import EngineSettings, LoadRequest, load_backend
from edgewright.runtime.backends.devices import KINDS, Device, no_such_device, parse_device
from edgewright.runtime.backends.onnxruntime import placement, require_provider, why_not_on
from edgewright.runtime.backends.openvino import choose_device, executable_precisions, one_at_a_time
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.compile import compile_openvino
from edgewright.runtime.errors import BackendError, MissingExtraError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.openvino_cache import compile_settings, precision_hint
from edgewright.runtime.parallel import available_cores

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
HAVE_GPU = {"CUDAExecutionProvider", "TensorrtExecutionProvider"} & set(ort.get_available_providers())
HAVE_INTEL = [name for name in ov.Core().available_devices if name != "CPU"]
without_cuda = pytest.mark.skipif(bool(HAVE_GPU), reason="ONNX Runtime has a provider for NVIDIA's GPUs here")
without_intel = pytest.mark.skipif(bool(HAVE_INTEL), reason="OpenVINO has a GPU or an NPU here")


def request_for(bundle: Bundle, name: str, device: str | None, precision: str = "fp32") -> LoadRequest:
    model, weights = bundle.artefact_bytes(bundle.manifest.artefact(name))
    return LoadRequest(model, weights, precision, EngineSettings(device, threads=1), "the model")


# Names


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", Device("cpu")),
        ("CUDA:1", Device("cuda", 1)),
        ("GPU.0", Device("gpu", 0)),
        (" npu ", Device("npu")),
        ("auto", Device("auto")),
        ("tensorrt:2", Device("tensorrt", 2)),
    ],
)
def test_name_is_understood(text: str, device: Device) -> None:
    assert parse_device(text) == device
    assert parse_device(str(device)) == device


@pytest.mark.parametrize(
    "text", ["", "tpu", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:999", "gpu0", "MULTI:CPU", "cuda:1:2"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"No device is called .*Expected one of cpu, cuda, tensorrt, gpu, npu, auto"):
        EngineSettings(device=text)


def test_first_of_a_kind_needs_no_number() -> None:
    assert Device("gpu").is_among(["gpu:0", "gpu:1"])
    assert Device("gpu", 0).is_among(["gpu"])
    assert not Device("gpu", 1).is_among(["gpu"])
    assert not Device("npu").is_among(["gpu"])


@pytest.mark.parametrize("kind", KINDS)
def test_message_of_an_absent_device_says_what_there_is(kind: str) -> None:
    for backend in ("onnxruntime", "openvino", "tensorrt"):
        assert f"{backend} has no device '{kind}' here. It has: cpu, x." in no_such_device(kind, backend, ("cpu", "x"))


@pytest.mark.parametrize(
    "settings",
    [{"streams": 0}, {"streams": 1025}, {"threads": 64, "streams": 64}, {"threads": 0}],
)
def test_absurd_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="Expected"):
        EngineSettings(**settings)  # type: ignore[arg-type]


# What is not here


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_gpu_that_onnx_runtime_has_not_is_said(tiny_bundle: Path, device: str) -> None:
    message = rf"onnxruntime has no device '{device}' here\. It has: cpu\. .*onnxruntime-gpu"
    with pytest.raises(UsageError, match=message):
        load(tiny_bundle, "model.fp32", device=device)


@without_intel
@pytest.mark.parametrize("device", ["gpu", "gpu:1", "npu"])
def test_device_that_openvino_has_not_is_said(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(UsageError, match=rf"openvino has no device '{device}' here\. It has: cpu, auto\. .*driver"):
        load(tiny_bundle, "openvino.fp32", device=device)


@without_cuda
@without_intel
@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_device_that_no_engine_has_lists_all(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(UsageError, match=rf"runs on '{device}' here") as caught:
        load(tiny_bundle, device=device)
    assert "onnxruntime has no device" in str(caught.value)
    assert "openvino has no device" in str(caught.value)


@pytest.mark.parametrize(
    ("artefact", "device"), [("openvino.fp32", "cuda"), ("model.fp32", "npu"), ("model.fp32", "auto")]
)
def test_device_of_another_engine_is_named_as_such(tiny_bundle: Path, artefact: str, device: str) -> None:
    with pytest.raises(UsageError, match=f"'{device}' is a device of {KINDS[device][0]}"):
        load(tiny_bundle, artefact, device=device)


def test_tensorrt_takes_nvidia_s_devices_only(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"tensorrt has no device 'npu' here\. It has: cuda"):
        load(tiny_bundle, "model.fp32", "tensorrt", device="npu")


def test_session_that_fell_back_to_the_cpu_is_refused(tiny_opened: Bundle) -> None:
    # What ONNX Runtime gives where a provider's libraries do not load: a session, and no error.
    session = ort.InferenceSession(
        request_for(tiny_opened, "model.fp32", None).model, providers=["CPUExecutionProvider"]
    )
    require_provider(session, "CPUExecutionProvider", "the model")
    with pytest.raises(BackendError, match=r"did not load its CUDAExecutionProvider .* run on CPUExecutionProvider"):
        require_provider(session, "CUDAExecutionProvider", "the model")


def test_placement_counts_the_operators_of_each_provider(tiny_opened: Bundle) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    model = request_for(tiny_opened, "model.fp32", None).model
    counts = placement(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    if counts is None:
        pytest.skip("this ONNX Runtime does not tell")
    assert set(counts) == {"CPUExecutionProvider"}
    assert counts["CPUExecutionProvider"] >= 3


@pytest.mark.skipif(not HAVE_GPU, reason="needs onnxruntime-gpu")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_gpu_is_used_or_refused_never_replaced(
    tiny_bundle: Path, golden_pixels: Pixels, golden_logits: Logits, device: str
) -> None:
    try:
        classifier = load(tiny_bundle, "model.fp32", device=device)
    except BackendError as error:
        assert re.search("did not load its|cannot load", str(error))  # noqa: PT017 - either is right, by machine
        return
    with classifier:
        assert (classifier.execution.device, classifier.execution.provider[:4].lower()) == (device, device[:4])
        np.testing.assert_allclose(classifier.run(golden_pixels), golden_logits, rtol=0, atol=1e-3)


def test_int8_that_cuda_would_compute_in_float_is_refused() -> None:
    if "CUDAExecutionProvider" not in HAVE_GPU:
        pytest.skip("needs ONNX Runtime with CUDA")
    assert why_not_on(Device("cuda"), "fp32") == ""
    assert "computes INT8 in float" in why_not_on(Device("cuda"), "int8")


# What is taken


@pytest.mark.parametrize(("artefact", "provider"), [("model.fp32", "CPUExecutionProvider"), ("openvino.fp32", None)])
def test_default_is_the_cpu_and_says_so(tiny_bundle: Path, artefact: str, provider: str | None) -> None:
    expected = provider or ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    with load(tiny_bundle, artefact, threads=1) as classifier:
        execution = classifier.execution
    assert (execution.device, execution.provider, execution.threads) == ("cpu", expected, 1)
    assert execution.streams == (None if artefact == "model.fp32" else 1)


def test_device_chooses_among_artefacts(tiny_copy: Path, reseal: Callable[..., None]) -> None:
    # `auto` is a device of OpenVINO alone.
    reseal(tiny_copy, lambda document: document.update(recommended="model.fp32"))
    with load(tiny_copy, device="auto") as classifier:
        assert classifier.artefact.name == "openvino.fp32"
    with load(tiny_copy, device="cpu") as classifier:
        assert classifier.artefact.name == "model.fp32"


def test_auto_says_which_device_it_took(tiny_bundle: Path, golden_pixels: Pixels, golden_logits: Logits) -> None:
    with load(tiny_bundle, "openvino.fp32", device="auto") as classifier:
        assert classifier.execution.device in {name.lower().replace(".", ":") for name in ov.Core().available_devices}
        np.testing.assert_allclose(classifier.run(golden_pixels), golden_logits, rtol=0, atol=1e-3)


@without_intel
def test_auto_asks_for_the_precision_first(tiny_opened: Bundle) -> None:
    lacking = {"bf16", "fp16"} - set(executable_precisions())
    if not lacking:
        pytest.skip("this CPU has instructions for all precisions")
    with pytest.raises(
        BackendError, match=rf"executes .*fp32, int8 on 'auto' here, not {min(lacking)}\. Choose another artefact"
    ):
        choose_device(request_for(tiny_opened, "openvino.fp32", "auto", min(lacking)))


def test_auto_refuses_what_is_no_model(tiny_opened: Bundle) -> None:
    request = request_for(tiny_opened, "openvino.fp32", "auto")
    with pytest.raises(BackendError, match="'the model' is no OpenVINO IR"):
        load_backend("openvino", replace(request, model=b"hello"))
    with pytest.raises(BackendError, match="cannot load 'the model'"):
        load_backend("openvino", replace(request, model=request.model[: len(request.model) // 2]))


def test_float_parts_follow_what_the_device_can() -> None:
    cpu, gpu, npu = ("fp32", "int8"), ("fp32", "fp16", "int8"), ("fp16", "int8")
    assert [precision_hint("int8", executable) for executable in (cpu, gpu, npu)] == ["f32", "f32", "f16"]
    assert precision_hint("fp16", gpu) == "f16"


def test_threads_are_told_to_the_cpu_only() -> None:
    settings = EngineSettings(threads=2, streams=3)
    assert compile_settings("fp32", settings, "CPU", ("fp32",)) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 6,
        "NUM_STREAMS": 3,
        "ENABLE_CPU_PINNING": "YES" if available_cores() <= 6 else "NO",
    }
    assert compile_settings("fp16", settings, "GPU.1", ("fp16",)) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16",
        "NUM_STREAMS": 3,
    }
    assert "NUM_STREAMS" not in compile_settings("fp16", settings, "NPU", ("fp16",))


def test_model_for_an_npu_has_a_fixed_shape(tiny_opened: Bundle) -> None:
    request = request_for(tiny_opened, "openvino.fp32", None)
    assert request.weights is not None
    weights = np.frombuffer(request.weights, np.uint8)
    model = ov.Core().read_model(model=request.model, weights=ov.Tensor(weights))
    one_at_a_time(model)
    assert [list(port.shape) for port in (*model.inputs, *model.outputs)] == [[1, 16, 16, 3], [1, 4]]


# OpenVINO's cache


def test_cache_folder_is_a_setting(tiny_opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "elsewhere"))
    artefact = tiny_opened.manifest.artefact("openvino.fp32")
    settings = EngineSettings(cache=tmp_path / "here")
    kept = Path(compile_openvino(tiny_opened, artefact, settings=settings).cache)
    assert kept.is_relative_to(tmp_path / "here" / "openvino")
    assert not (tmp_path / "elsewhere").exists()
    with load(tiny_opened.path, "openvino.fp32", cache=tmp_path / "here") as classifier:
        assert classifier._backend._single.compiled.get_property("LOADED_FROM_CACHE")  # type: ignore[attr-defined]
    with load(tiny_opened.path, "openvino.fp32") as classifier:
        assert not classifier._backend._single.compiled.get_property("LOADED_FROM_CACHE")  # type: ignore[attr-defined]


def test_cache_is_kept_apart_by_streams(tiny_opened: Bundle, tmp_path: Path) -> None:
    artefact = tiny_opened.manifest.artefact("openvino.fp32")
    folders = {
        compile_openvino(tiny_opened, artefact, settings=EngineSettings(streams=streams, cache=tmp_path)).cache
        for streams in (None, 1, 2)
    }
    assert len(folders) == 2


def test_compile_for_auto_keeps_it_for_the_device_that_was_taken(tiny_opened: Bundle, tmp_path: Path) -> None:
    artefact = tiny_opened.manifest.artefact("openvino.fp32")
    by_auto, by_name = (
        compile_openvino(tiny_opened, artefact, settings=EngineSettings(device, cache=tmp_path))
        for device in ("auto", "cpu")
    )
    if by_auto.device == "CPU":
        assert (by_name.cache, by_name.state) == (by_auto.cache, "fresh")
    else:
        assert by_name.cache != by_auto.cache


# Commands


@without_intel
@without_cuda
@pytest.mark.parametrize("command", ["predict", "val", "verify", "bench"])
def test_commands_refuse_an_absent_device_in_one_message(
    edgewright: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, command: str
) -> None:
    picture = tiny_bundle / "golden" / "001.jpeg"
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "1.jpeg").write_bytes(picture.read_bytes())
    more = {"predict": [picture], "val": [tmp_path]}.get(command, [])
    found = edgewright(command, tiny_bundle, *more, "--device", "npu")
    assert (found.returncode, found.stdout) == (2, "")
    assert "openvino has no device 'npu' here. It has: cpu, auto." in found.stderr
    assert "onnxruntime has no device 'npu' here. It has: cpu." in found.stderr
    assert "Traceback" not in found.stderr


def test_bench_tells_the_device_and_passes_over_what_lacks_it(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgewright.benchmarks.commands import bench_command

    bench_command(tiny_bundle, device="auto", seconds=0.1, json=True)
    shown = capsys.readouterr()
    report, _ = json.loads(shown.out)["reports"]  # one picture, and eight
    assert (report["artefact"], report["backend"]) == ("openvino.fp32", "openvino")
    assert report["device"] != "auto"
    assert report["provider"]
    assert "'model.fp32' is passed over: onnxruntime has no device 'auto'" in shown.err


def test_verify_on_a_device_tries_what_has_it(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgewright.runtime.commands import verify_command

    verify_command(tiny_bundle, device="auto", json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["artefacts"]}
    assert rows["openvino.fp32"]["passed"]
    assert rows["model.fp32"]["passed"] is None
    assert "onnxruntime has no device 'auto'" in rows["model.fp32"]["reason"]


def test_missing_engine_is_said_before_its_device(python: Callable[..., Any], tiny_bundle: Path) -> None:
    code = """
import sys, edgewright
from edgewright.runtime.errors import EdgewrightError
try:
    edgewright.load(sys.argv[1], "openvino.fp32", device="npu")
except EdgewrightError as error:
    print(type(error).__name__, error)
"""
    assert python("-c", code, tiny_bundle, without=("openvino",)).stdout.startswith(MissingExtraError.__name__)
