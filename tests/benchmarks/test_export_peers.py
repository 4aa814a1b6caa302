"""The comparisons of artefacts on a small real run: figures that belong together, and graphs that compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgewright.benchmarks.peers.uint8_input import with_float_input
from edgewright.export.onnx_graph import to_onnx
from edgewright.export.quantization.pixels import grid_of
from edgewright.export.quantization.profiles import ORT_X86
from edgewright.export.quantization.workshop import Workshop
from edgewright.export.simulate import open_session
from edgewright.runtime.errors import UsageError
from edgewright.runtime.preprocess import preprocess

if TYPE_CHECKING:
    from edgewright.train.run import Run
    from tests.benchmarks.conftest import Measure

TWO_ENGINES = {"onnxruntime", "openvino"}


@pytest.mark.slow
def test_int8_gain_is_that_of_the_artefacts(measure: Measure, digits_run: Run) -> None:
    (found,) = measure("int8_gain", digits_run.folder, "--seconds", 0.2, "--threads", 1, "--max-drop", 100)["runs"]
    rows = {row["name"]: row for row in found["artefacts"]}
    assert {"model.fp32", "openvino.fp32", "model.int8.ort-x86", "model.int8.ort-arm", "openvino.int8"} <= set(rows)
    assert rows["model.fp32"]["top1"] == pytest.approx(found["trained_test_top1"])
    for row in rows.values():
        assert row["drop"] == pytest.approx(100 * (found["trained_test_top1"] - row["top1"]))
        # What is refused is no artefact of the bundle, so that its speed is of no interest.
        assert (row["p50_ms"] is not None) == (row["passed"] and row["name"] != "model.int8.ort-arm")
    fastest = {
        kind: min(row["p50_ms"] for row in rows.values() if row["executed"] == kind and row["p50_ms"] is not None)
        for kind in ("fp32", "int8")
    }
    assert found["int8_over_fp32"] == pytest.approx(fastest["fp32"] / fastest["int8"])
    assert found["export_seconds"] > 0


@pytest.mark.slow
def test_uint8_input_is_compared_in_both_engines(measure: Measure, digits_run: Run) -> None:
    found = measure("uint8_input", digits_run.folder, "--seconds", 0.1, "--threads", 1)
    p50 = found["p50_ms"]
    assert all(ms > 0 for ms in p50.values())
    assert {"normalise", "planes"} < set(p50)
    assert found["ratio"] == {
        engine: pytest.approx(p50[f"{engine} uint8"] / p50[f"{engine} float"]) for engine in TWO_ENGINES
    }


def test_float_input_computes_the_same(digits_run: Run) -> None:
    spec = digits_run.record.preprocess
    samples = digits_run.data().splits["train"][::30]
    pixels = np.stack([preprocess(sample.source, spec) for sample in samples])
    model = to_onnx(digits_run.network(), spec.crop)
    quantized = Workshop(model, spec, pixels, ["minmax"]).quantize(ORT_X86, "minmax")
    changed = with_float_input(quantized, spec)
    grid = grid_of(spec, symmetric=False)
    planes = ((pixels.astype(np.float32) - grid.zero_point) * np.float32(grid.scale)).transpose(0, 3, 1, 2)
    answers = [
        open_session(graph.SerializeToString(), literal=True).run(None, {"pixels": feed})[0]
        for graph, feed in ((quantized, pixels), (changed, np.ascontiguousarray(planes)))
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    with pytest.raises(UsageError, match="nothing to compare"):
        with_float_input(model, spec)
