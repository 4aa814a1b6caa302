"""Running, against the API of each version: a call that does not exist there fails here.

No GPU is needed and none is used: these tests prove that the code speaks to TensorRT as its real bindings allow, not that
an engine is fast or right. `test_gpu.py` does that where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

from edgewright.runtime.backends import EngineSettings, LoadRequest, TensorSpec, load_backend
from edgewright.runtime.errors import BackendError
from edgewright.runtime.tensorrt.builder import build_engine
from edgewright.runtime.tensorrt.cuda import load_cuda
from edgewright.runtime.tensorrt.engines import prepare_engine
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions
from edgewright.runtime.tensorrt.runner import EngineRunner

PIXELS = np.zeros((1, 16, 16, 3), np.uint8)


def runner_of(device: Any, model: bytes, batch: BatchProfile, precision: str = "fp32") -> EngineRunner:
    options = BuildOptions(precision, batch)  # type: ignore[arg-type]
    plan = build_engine(device.trt, model, options, name="the model").plan
    return EngineRunner(device.trt, load_cuda(), plan, name="the model", dla=None, host_code=False)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_any_batch_size_gives_the_same_answers(device: Any, models: dict[str, bytes], count: int, helpers: Any) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile(2, 2, 4))
    assert runner.batches == (2, 4)
    pixels = helpers.pixels(count)
    (found,) = runner.run({"pixels": pixels})
    assert found.shape == (count, 4)
    np.testing.assert_allclose(found, helpers.reference(models["fp32"], pixels), atol=1e-5)
    runner.close()


def test_tensors_are_those_of_the_model(device: Any, models: dict[str, bytes]) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile())
    assert runner.inputs == (TensorSpec("pixels", "uint8", (None, 16, 16, 3)),)
    assert runner.outputs == (TensorSpec("logits", "float32", (None, 4)),)
    runner.close()


def test_graph_with_a_fixed_batch_needs_no_profile(
    device: Any, network: Callable[..., onnx.ModelProto], helpers: Any
) -> None:
    model = network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 2
    runner = runner_of(device, model.SerializeToString(), BatchProfile())
    assert device.machine.builds_done[-1]["shapes"] == {"pixels": None}
    pixels = helpers.pixels(3)
    np.testing.assert_allclose(
        runner.run({"pixels": pixels})[0], helpers.reference(network().SerializeToString(), pixels), atol=1e-5
    )
    runner.close()


def test_answers_belong_to_the_caller(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile())
    pixels = helpers.pixels(2)
    (first,) = runner.run({"pixels": pixels})
    kept = first.copy()
    runner.run({"pixels": pixels[::-1].copy()})
    runner.close()
    np.testing.assert_array_equal(first, kept)


def test_threads_may_share_a_runner(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile(1, 1, 2))
    pixels = [helpers.pixels(count) for count in (1, 2, 3, 4)]
    expected = [helpers.reference(models["fp32"], batch) for batch in pixels]

    def work(worker: int) -> bool:
        chosen = worker % len(pixels)
        return all(
            np.allclose(runner.run({"pixels": pixels[chosen]})[0], expected[chosen], atol=1e-5) for _ in range(5)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    runner.close()


def test_closing_gives_everything_back(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile())
    assert len(device.machine.allocations) == 4  # input and output, on both sides
    runner.run({"pixels": helpers.pixels(1)})
    runner.close()
    runner.close()
    assert device.machine.allocations == {}
    assert device.machine.streams == {}
    with pytest.raises(BackendError, match="is closed"):
        runner.run({"pixels": helpers.pixels(1)})
    with pytest.raises(BackendError, match="is closed"):
        runner.layers()


def test_a_full_gpu_is_told_and_leaves_nothing_behind(device: Any, models: dict[str, bytes]) -> None:
    plan = build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m").plan
    device.machine.memory_left = 16 * 16 * 16 * 3 + 100
    with pytest.raises(BackendError, match="GPU's memory is full"):
        EngineRunner(device.trt, load_cuda(), plan, name="m", dla=None, host_code=False)
    assert device.machine.allocations == {}
    assert device.machine.streams == {}


def test_no_context_is_told(device: Any, models: dict[str, bytes]) -> None:
    plan = build_engine(device.trt, models["fp32"], BuildOptions("fp32"), name="m").plan
    device.machine.gives_context = False
    with pytest.raises(BackendError, match="cannot prepare"):
        EngineRunner(device.trt, load_cuda(), plan, name="m", dla=None, host_code=False)


def test_failed_execution_is_told(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile())
    device.machine.runs = False
    with pytest.raises(BackendError, match="TensorRT failed on 'the model'"):
        runner.run({"pixels": helpers.pixels(1)})
    device.machine.runs = True
    assert runner.run({"pixels": helpers.pixels(1)})[0].shape == (1, 4)
    runner.close()


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"image": PIXELS},
        {"pixels": PIXELS.astype(np.float32)},
        {"pixels": PIXELS[:, :8]},
        {"pixels": PIXELS[:0]},
    ],
    ids=["none", "another name", "another type", "another size", "empty"],
)
def test_wrong_inputs_are_refused(device: Any, models: dict[str, bytes], feeds: dict[str, Any]) -> None:
    runner = runner_of(device, models["fp32"], BatchProfile())
    with pytest.raises(BackendError, match="was given"):
        runner.run(feeds)
    runner.close()


def test_layers_and_their_times(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    runner = runner_of(device, helpers.onnx_for(device, models, "fp16"), BatchProfile(), "fp16")
    layers = runner.layers()
    assert layers.tensors == ("pixels", "logits")
    assert [layer.precision for layer in layers.layers] == ["fp16"]
    assert layers.precisions() == {"fp16": 1}
    assert runner.layer_times({"pixels": helpers.pixels(2)}, repeats=3) == {"first": 0.25, "second": 0.5}
    with pytest.raises(BackendError, match="one batch"):
        runner.layer_times({"pixels": helpers.pixels(17)})
    runner.close()


def test_layers_in_another_precision_are_told(device: Any, models: dict[str, bytes], capsys: Any) -> None:
    for computes, said in (("", False), ("FP32", True)):
        device.machine.computes = computes
        precision = "int8"
        prepare_engine(
            device.trt, load_cuda(), models[precision], BuildOptions("int8"), name="m", force=True
        ).runner.close()
        load_backend("tensorrt", LoadRequest(models[precision], None, precision, EngineSettings(), "the model")).close()
        shown = capsys.readouterr().err
        assert ("executes no layer of 'the model' in int8 here, but 1 fp32" in shown) == said


def test_backend_runs_and_keeps_its_engine(device: Any, models: dict[str, bytes], helpers: Any) -> None:
    pixels = helpers.pixels(2)
    for _ in range(2):
        backend = load_backend(
            "tensorrt", LoadRequest(models["int8"], None, "int8", EngineSettings(), "model.int8.trt")
        )
        np.testing.assert_allclose(
            backend.run({"pixels": pixels})[0], helpers.reference(models["int8"], pixels), atol=1e-5
        )
        backend.close()
    assert len(device.machine.builds_done) == 1
    assert device.machine.allocations == {}


def test_prepare_loads_what_it_built(device: Any, models: dict[str, bytes]) -> None:
    prepared = prepare_engine(device.trt, load_cuda(), models["fp32"], BuildOptions("fp32"), name="m")
    assert (prepared.state, prepared.record.key.gpu, prepared.record.key.cuda) == ("absent", "Orin", "12.6")
    prepared.runner.close()
