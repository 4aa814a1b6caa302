"""Engines: the same answers from each, in the precision that was asked for, from any number of threads."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
import pytest
from onnx.external_data_helper import convert_model_to_external_data
from openvino import opset13

from edgewright.runtime.backends import (
    BACKENDS,
    Backend,
    EngineSettings,
    LoadRequest,
    TensorSpec,
    backend_available,
    load_backend,
)
from edgewright.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.runtime.backends.openvino import OpenVinoBackend, executable_precisions
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.openvino_cache import compile_settings

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
ARTEFACTS = {"onnxruntime": "model.fp32", "openvino": "openvino.fp32"}
every_engine = pytest.mark.parametrize("name", ARTEFACTS)


def request_for(bundle: Bundle, name: str, precision: str = "fp32", threads: int | None = 1) -> LoadRequest:
    model, weights = bundle.artefact_bytes(bundle.manifest.artefact(ARTEFACTS[name]))
    return LoadRequest(model, weights, precision, EngineSettings(threads=threads), "the model")


@pytest.fixture(params=ARTEFACTS)
def backend(request: pytest.FixtureRequest, tiny_opened: Bundle) -> Iterator[Backend]:
    """Each engine in turn, with the tiny model loaded."""
    loaded = load_backend(request.param, request_for(tiny_opened, request.param))
    yield loaded
    loaded.close()


@pytest.fixture
def pixels() -> Pixels:
    """Random pixels, uint8 (16, 16, 16, 3)."""
    return np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)


def test_list_of_artefacts_in_these_tests_is_complete() -> None:
    # TensorRT has tests of its own, for machines with and without it; so has the client of a server.
    assert {*ARTEFACTS, "tensorrt", "remote"} == set(BACKENDS)


def test_golden_tensors_give_golden_logits(backend: Backend, golden_pixels: Pixels, golden_logits: Logits) -> None:
    np.testing.assert_allclose(backend.run({"pixels": golden_pixels})[0], golden_logits, rtol=0, atol=1e-4)


def test_engines_agree_on_any_pixels(tiny_opened: Bundle, pixels: Pixels) -> None:
    first, *others = (
        load_backend(name, request_for(tiny_opened, name)).run({"pixels": pixels})[0] for name in ARTEFACTS
    )
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batch_gives_what_single_pictures_give(backend: Backend, pixels: Pixels, batch: int) -> None:
    single = [backend.run({"pixels": picture[None]})[0][0] for picture in pixels[:batch]]
    np.testing.assert_allclose(backend.run({"pixels": pixels[:batch]})[0], np.stack(single), rtol=0, atol=1e-5)


def test_inputs_are_described(backend: Backend) -> None:
    assert list(backend.inputs) == [TensorSpec("pixels", "uint8", (None, 16, 16, 3))]


def test_outputs_are_described(backend: Backend) -> None:
    assert list(backend.outputs) == [TensorSpec("logits", "float32", (None, 4))]


def test_outputs_are_float32(backend: Backend, golden_pixels: Pixels) -> None:
    assert backend.run({"pixels": golden_pixels})[0].dtype == np.float32


def test_pixels_that_cannot_be_written_to_are_taken(backend: Backend, golden_pixels: Pixels) -> None:
    expected = backend.run({"pixels": golden_pixels})[0]
    golden_pixels.flags.writeable = False
    np.testing.assert_array_equal(backend.run({"pixels": golden_pixels})[0], expected)


def test_pixels_are_left_as_they_are(backend: Backend, golden_pixels: Pixels) -> None:
    before = golden_pixels.copy()
    backend.run({"pixels": golden_pixels})
    np.testing.assert_array_equal(golden_pixels, before)


def test_next_run_leaves_earlier_outputs_alone(backend: Backend, pixels: Pixels) -> None:
    first = backend.run({"pixels": pixels[:1]})[0]
    before = first.copy()
    backend.run({"pixels": pixels[1:2]})
    np.testing.assert_array_equal(first, before)


def test_outputs_survive_the_engine(backend: Backend, pixels: Pixels) -> None:
    found = backend.run({"pixels": pixels})[0]
    before = found.copy()
    backend.close()
    np.testing.assert_array_equal(found, before)


def test_threads_get_the_answers_that_one_thread_gets(backend: Backend, pixels: Pixels) -> None:
    expected = [backend.run({"pixels": picture[None]})[0] for picture in pixels]

    def fifty_runs(worker: int) -> bool:
        picks = np.random.default_rng(worker).integers(0, len(pixels), 50)
        return all(np.array_equal(backend.run({"pixels": pixels[pick, None]})[0], expected[pick]) for pick in picks)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fifty_runs, range(8)))


def test_closed_engine_says_so(backend: Backend, golden_pixels: Pixels) -> None:
    backend.close()
    with pytest.raises(BackendError, match="'the model' is closed"):
        backend.run({"pixels": golden_pixels})


def test_engine_may_be_closed_twice(backend: Backend) -> None:
    backend.close()
    backend.close()


@pytest.mark.parametrize(
    "shape", [(1, 8, 16, 3), (1, 16, 16, 4), (16, 16, 3), (1, 3, 16, 16)], ids=["height", "channels", "batch", "layout"]
)
def test_pixels_of_another_shape_are_refused(backend: Backend, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="failed on 'the model'"):
        backend.run({"pixels": np.zeros(shape, np.uint8)})


def test_input_of_another_name_is_refused(backend: Backend, golden_pixels: Pixels) -> None:
    with pytest.raises(BackendError, match=r"given images \(uint8\)\. Expected pixels \(uint8\)"):
        backend.run({"images": golden_pixels})


def test_missing_input_is_refused(backend: Backend, golden_pixels: Pixels) -> None:
    backend.run({"pixels": golden_pixels})  # OpenVINO would go on with what its request holds from here
    with pytest.raises(BackendError, match=r"'the model' was given nothing\. Expected pixels"):
        backend.run({})


def test_input_that_the_model_has_not_is_refused(backend: Backend, golden_pixels: Pixels) -> None:
    with pytest.raises(BackendError, match=r"given pixels \(uint8\), more \(uint8\)"):
        backend.run({"pixels": golden_pixels, "more": golden_pixels})


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_input_of_another_type_is_refused(backend: Backend, golden_pixels: Pixels, dtype: str) -> None:
    with pytest.raises(BackendError, match=rf"given pixels \({dtype}\)\. Expected pixels \(uint8\)"):
        backend.run({"pixels": golden_pixels.astype(dtype)})


@every_engine
@pytest.mark.parametrize(
    "model",
    [b"", b"hello", np.random.default_rng(0).bytes(1000), b"<?xml version='1.0'?><net></net>"],
    ids=["empty", "text", "noise", "xml"],
)
def test_bytes_that_are_no_model_are_refused(name: str, model: bytes) -> None:
    with pytest.raises(BackendError, match=r"cannot load 'the model'|'the model' is no OpenVINO IR"):
        load_backend(name, LoadRequest(model, None, "fp32", EngineSettings(threads=1), "the model"))


@pytest.mark.parametrize("disguise", [b"", b"\n<" + b"?xml".ljust(60)], ids=["plain", "unknown field"])
def test_openvino_reads_no_onnx(network: Callable[..., onnx.ModelProto], disguise: bytes) -> None:
    model = disguise + network().SerializeToString()
    onnx.load_model_from_string(model)
    with pytest.raises(BackendError, match="'the model' is no OpenVINO IR"):
        load_backend("openvino", LoadRequest(model, None, "fp32", EngineSettings(threads=1), "the model"))


@every_engine
def test_half_a_model_is_refused(tiny_opened: Bundle, name: str) -> None:
    whole = request_for(tiny_opened, name)
    with pytest.raises(BackendError, match="cannot load 'the model'"):
        load_backend(
            name,
            LoadRequest(
                whole.model[: len(whole.model) // 2], whole.weights, "fp32", EngineSettings(threads=1), "the model"
            ),
        )


@pytest.mark.parametrize("kept", [0, 100])
def test_openvino_weights_that_are_too_short_are_refused(tiny_opened: Bundle, kept: int) -> None:
    whole = request_for(tiny_opened, "openvino")
    assert whole.weights is not None
    with pytest.raises(BackendError, match="cannot load 'the model'"):
        load_backend(
            "openvino", LoadRequest(whole.model, whole.weights[:kept], "fp32", EngineSettings(threads=1), "the model")
        )


@every_engine
@pytest.mark.parametrize("model", [b"hello", b"<?xml version='1.0'?><net></net>"], ids=["text", "xml"])
def test_refusal_gives_the_engine_s_reason(name: str, model: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        load_backend(name, LoadRequest(model, None, "fp32", EngineSettings(threads=1), "the model"))
    assert not re.search(r"\.cpp:\d+:?$", str(caught.value))


def test_openvino_s_failure_gives_its_reason(tiny_opened: Bundle) -> None:
    backend = load_backend("openvino", request_for(tiny_opened, "openvino"))
    with pytest.raises(BackendError, match=r"failed on 'the model': .*shape") as caught:
        backend.run({"pixels": np.zeros((1, 8, 16, 3), np.uint8)})
    assert "Exception from src" not in str(caught.value)


@every_engine
@pytest.mark.parametrize("where", ["weights.bin", "{folder}/weights.bin"], ids=["relative", "absolute"])
def test_weights_outside_the_model_are_not_fetched(
    network: Callable[..., onnx.ModelProto],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    where: str,
) -> None:
    model = network()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0, convert_attribute=False)
    onnx.save_model(model, str(tmp_path / "model.onnx"))
    model = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = where.format(folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=r"cannot load 'the model'|'the model' is no OpenVINO IR"):
        load_backend(name, LoadRequest(model.SerializeToString(), None, "fp32", EngineSettings(threads=1), "the model"))


def test_unknown_engine_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"Unknown backend 'tflite'\. Available: onnxruntime, openvino"):
        load_backend("tflite", LoadRequest(b"", None, "fp32", EngineSettings(threads=1), "the model"))


@every_engine
def test_installed_engine_is_available(name: str) -> None:
    assert backend_available(name)


def test_availability_of_an_unknown_engine_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="Unknown backend 'tflite'"):
        backend_available("tflite")


def test_engine_that_is_not_installed_is_not_available(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = "from edgewright.runtime.backends import backend_available as a; print(a('onnxruntime'), a('openvino'))"
    assert python("-c", code, without=("openvino",)).stdout == "True False\n"


def test_engine_that_is_not_installed_names_its_extra(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = """
from edgewright.runtime.backends import EngineSettings, LoadRequest, load_backend
from edgewright.runtime.errors import MissingExtraError
try:
    load_backend("openvino", LoadRequest(b"", None, "fp32", EngineSettings(threads=1), "the model"))
except MissingExtraError as error:
    print(error.package, error.extra, error)
"""
    found = python("-c", code, without=("openvino",)).stdout
    assert re.match(r"openvino openvino .*pip install 'edgewright\[openvino\]'", found)


def executed_precision(backend: Backend) -> str:
    """What OpenVINO says it executes, read from the compiled model itself."""
    assert isinstance(backend, OpenVinoBackend)
    compiled = backend._single.compiled
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())


def quantized_ir(network: Callable[..., onnx.ModelProto], quantized: bool = True) -> tuple[bytes, bytes]:
    """The tiny network as an IR with FakeQuantize before both operands of each convolution, as NNCF writes it."""
    model = ov.Core().read_model(model=network().SerializeToString())
    for op in model.get_ordered_ops() if quantized else ():
        if op.get_type_name() == "Convolution":
            for number, (low, high, levels) in enumerate([(0.0, 2.0, 256), (-1.0, 1.0, 255)]):
                ends = [np.float32(low), np.float32(high)] * 2
                port = op.input(number)
                port.replace_source_output(opset13.fake_quantize(port.get_source_output(), *ends, levels).output(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def test_openvino_executes_float_parts_in_f32(tiny_opened: Bundle, network: Callable[..., onnx.ModelProto]) -> None:
    assert executed_precision(load_backend("openvino", request_for(tiny_opened, "openvino"))) == "f32"
    quantized = LoadRequest(*quantized_ir(network), "int8", EngineSettings(threads=1), "the model")
    assert executed_precision(load_backend("openvino", quantized)) == "f32"


def test_openvino_refuses_an_int8_artefact_that_is_executed_in_float(network: Callable[..., onnx.ModelProto]) -> None:
    request = LoadRequest(*quantized_ir(network, quantized=False), "int8", EngineSettings(threads=1), "the model")
    with pytest.raises(BackendError, match=r"of 'the model' otherwise than in int8, as declared: 3 in fp32"):
        load_backend("openvino", request)


def test_openvino_refuses_a_float_artefact_that_is_quantized(network: Callable[..., onnx.ModelProto]) -> None:
    request = LoadRequest(*quantized_ir(network), "fp32", EngineSettings(threads=1), "the model")
    with pytest.raises(BackendError, match=r"otherwise than in fp32, as declared: .*2 in int8"):
        load_backend("openvino", request)


@pytest.mark.parametrize(("precision", "executed"), [("bf16", "bf16"), ("fp16", "f16")])
def test_openvino_runs_half_precision_or_says_that_it_cannot(
    tiny_opened: Bundle, precision: str, executed: str
) -> None:
    wanted = request_for(tiny_opened, "openvino", precision)
    if precision in executable_precisions():
        assert executed_precision(load_backend("openvino", wanted)) == executed
    else:
        # Where it would emulate, it takes the hint; elsewhere it does not.
        with pytest.raises(BackendError, match=f"runs 'the model' in f32 here, not in {executed}|emulate {precision}"):
            load_backend("openvino", wanted)


def test_precisions_that_openvino_executes_here_are_those_of_the_cpu() -> None:
    flags = {
        word
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("flags")
        for word in line.split()
    }
    found = executable_precisions()
    assert {"fp32", "int8"} <= set(found)
    if flags:
        assert ("bf16" in found) == bool(flags & {"avx512_bf16", "avx_ne_convert"})
        assert ("fp16" in found) == bool(flags & {"avx512_fp16", "avx_ne_convert"})


def test_openvino_keeps_to_the_threads_it_was_told(tiny_opened: Bundle) -> None:
    backend = load_backend("openvino", request_for(tiny_opened, "openvino", threads=1))
    assert isinstance(backend, OpenVinoBackend)
    assert backend._single.compiled.get_property("INFERENCE_NUM_THREADS") == 1


def with_streams(bundle: Bundle, name: str, threads: int | None, streams: int) -> Backend:
    request = request_for(bundle, name, threads=threads)
    settings = dataclasses.replace(request.settings, streams=streams)
    return load_backend(name, dataclasses.replace(request, settings=settings))


@pytest.mark.parametrize(("threads", "streams", "each"), [(1, 3, 1), (2, 2, 2), (None, 1024, 1)])
def test_streams_have_threads_of_their_own(tiny_opened: Bundle, threads: int | None, streams: int, each: int) -> None:
    session = with_streams(tiny_opened, "onnxruntime", threads, streams)
    assert isinstance(session, OnnxRuntimeBackend)
    assert session._session is not None
    assert session._session.get_session_options().intra_op_num_threads == each
    settings = compile_settings("fp32", EngineSettings(threads=threads, streams=streams), "CPU", ("fp32",))
    assert (settings["NUM_STREAMS"], settings["INFERENCE_NUM_THREADS"]) == (streams, each * streams)


@every_engine
def test_streams_answer_several_at_once(tiny_opened: Bundle, golden_pixels: Pixels, name: str) -> None:
    backend = with_streams(tiny_opened, name, 1, 3)
    expected = backend.run({"pixels": golden_pixels})[0]
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: backend.run({"pixels": golden_pixels})[0], range(60)):
            np.testing.assert_array_equal(found, expected)
    backend.close()


def test_one_stream_is_what_openvino_keeps_compiled() -> None:
    one, usual = (compile_settings("fp32", EngineSettings(threads=2, streams=n), "CPU", ("fp32",)) for n in (1, None))
    assert one == usual


@every_engine
def test_number_of_threads_may_be_left_to_the_engine(tiny_opened: Bundle, golden_pixels: Pixels, name: str) -> None:
    backend = load_backend(name, request_for(tiny_opened, name, threads=None))
    assert backend.run({"pixels": golden_pixels})[0].shape == (3, 4)


@pytest.mark.parametrize("threads", [1, 1024, None])
def test_sensible_number_of_threads_is_taken(threads: int | None) -> None:
    assert EngineSettings(threads=threads).threads == threads


@pytest.mark.parametrize("threads", [-1, 0, 1025, 10**9])
def test_absurd_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=rf"{threads} threads for an engine\. Expected 1 to 1024"):
        EngineSettings(threads=threads)
