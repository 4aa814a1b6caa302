"""INT8 graphs that take uint8 pixels against the same ones with a float input.

    python -m edgewright.benchmarks.peers.uint8_input RUN [--json]

For each engine the INT8 graph of the run is made twice: as edgewright makes it, and with a float NCHW input that someone else has to
normalise. All take turns, the engine alone; `normalise` is what NumPy needs to make that float input from the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import numpy.typing as npt
import onnx
import typer
from onnx import helper

from edgewright.benchmarks.peers.sides import machine
from edgewright.export.calibration import choose_calibration
from edgewright.export.candidates import Candidate
from edgewright.export.onnx_graph import INPUT_NAME, to_onnx
from edgewright.export.openvino_ir import quantize_ir, serialize_ir, to_ir
from edgewright.export.quantization.pixels import PixelForm, grid_of
from edgewright.export.quantization.profiles import ORT_X86
from edgewright.export.quantization.workshop import Workshop
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.errors import UsageError
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.preprocess import Preprocess, in_layout
from edgewright.runtime.timing import interleaved_latencies_ms
from edgewright.train.run import read_run

__all__ = ["compare_inputs", "with_float_input"]

_CALIBRATION = 100


def with_float_input(model: onnx.ModelProto, spec: Preprocess) -> onnx.ModelProto:
    """A graph whose pixels are dequantized first, with what comes out of that as its input, float32 NCHW."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    entrance = next((node for node in graph.node if node.name == "pixel_dequantize"), None)
    if entrance is None:
        raise UsageError("The pixels of this graph are not its quantized tensor, so there is nothing to compare.")
    shape: list[str | int | None] = ["batch", 3, spec.crop, spec.crop]
    value = helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.FLOAT, shape)
    for node in [node for node in graph.node if node.name in ("pixel_dequantize", "pixel_transpose")]:
        graph.node.remove(node)
    renamed = entrance.output[0]
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        # The pair that the pixels' own dequantization stood for.
        pair = [
            helper.make_node(
                "QuantizeLinear", [INPUT_NAME, *entrance.input[1:]], ["input_quantized"], "input_quantize"
            ),
            helper.make_node(
                "DequantizeLinear", ["input_quantized", *entrance.input[1:]], [renamed], "input_dequantize"
            ),
        ]
        for position, node in enumerate(pair):
            graph.node.insert(position, node)
    else:
        for node in graph.node:
            for position, name in enumerate(node.input):
                if name == renamed:
                    node.input[position] = INPUT_NAME
    del graph.input[:]
    graph.input.append(value)
    onnx.checker.check_model(changed)
    return changed


def compare_inputs(run: Path, *, threads: int, seconds: float) -> dict[str, Any]:
    """Median milliseconds of each engine with either input, and their ratio."""
    found = read_run(run)
    spec, data = found.record.preprocess, found.data()
    calibration = choose_calibration(data.splits["train"], _CALIBRATION, spec)
    model = to_onnx(found.network(), spec.crop)
    workshop = Workshop(model, spec, calibration.pixels, ["minmax"])
    quantized = workshop.quantize(ORT_X86, "minmax")
    planes = workshop.base(PixelForm("NCHW", symmetric=False)).model
    normalise = partial(_normalised, spec=spec)
    pixels = calibration.pixels[:1]
    feeds: dict[str, tuple[Candidate, npt.NDArray[Any]]] = {
        "onnxruntime uint8": (_onnx(quantized), pixels),
        "onnxruntime float": (_onnx(with_float_input(quantized, spec)), normalise(pixels)),
        "openvino uint8": (
            _openvino(planes, calibration.pixels, partial(in_layout, layout="NCHW"), spec),
            in_layout(pixels, "NCHW"),
        ),
        "openvino float": (
            _openvino(with_float_input(planes, spec), calibration.pixels, normalise, spec),
            normalise(pixels),
        ),
    }
    loaded = {name: candidate.load(threads) for name, (candidate, _) in feeds.items()}
    calls: dict[str, Callable[[], object]] = {
        name: partial(loaded[name].run, {INPUT_NAME: feed}) for name, (_, feed) in feeds.items()
    }
    calls["normalise"] = partial(normalise, pixels)
    calls["planes"] = partial(in_layout, pixels, "NCHW")
    samples = interleaved_latencies_ms(calls, seconds=seconds, rounds=10)
    p50 = {name: float(np.median(ms)) for name, ms in samples.items()}
    return {
        "run": run.name,
        "backbone": found.record.backbone,
        "p50_ms": p50,
        "ratio": {engine: p50[f"{engine} uint8"] / p50[f"{engine} float"] for engine in ("onnxruntime", "openvino")},
    }


def _normalised(pixels: npt.NDArray[np.uint8], *, spec: Preprocess) -> npt.NDArray[np.float32]:
    """Float NCHW on the grid of the graph."""
    grid = grid_of(spec, symmetric=False)
    planes = in_layout(pixels, "NCHW").astype(np.float32)
    planes -= np.float32(grid.zero_point)
    planes *= np.float32(grid.scale)
    return planes


def _onnx(model: onnx.ModelProto) -> Candidate:
    return Candidate("int8", "onnxruntime", "int8", "int8", None, {"int8.onnx": model.SerializeToString()})


def _openvino(
    model: onnx.ModelProto,
    pixels: npt.NDArray[np.uint8],
    prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]],
    spec: Preprocess,
) -> Candidate:
    ir = to_ir(model.SerializeToString(), ["a", "b"], spec, "NCHW")
    contents = serialize_ir(quantize_ir(ir, pixels, prepare))
    files = dict(zip(("model.xml", "model.bin"), contents, strict=True))
    return Candidate("int8", "openvino", "int8", "int8", None, files)


def main(
    run: Annotated[Path, typer.Argument(help="A finished run of `edgewright train`.")],
    threads: Annotated[
        Optional[int], typer.Option(min=1, help="Threads for one inference. (default: all cores)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure both inputs in both engines."""
    used = threads or available_cores()
    facts = machine()
    document = compare_inputs(run, threads=used, seconds=seconds)
    if json:
        emit_json({**document, "threads": used, "device": facts})
    print_table(
        f"{document['backbone']}: uint8 takes {document['ratio']['onnxruntime']:.2f} of the time of float in ONNX Runtime, "
        f"{document['ratio']['openvino']:.2f} in OpenVINO",
        ("what", "p50"),
        [(name, f"{ms:.3f} ms") for name, ms in document["p50_ms"].items()],
    )


if __name__ == "__main__":
    typer.run(main)
