"""The repair ladder of INT8 artefacts: ways to make one, the cheapest first; each is made only if it is asked for.

First the ways to draw ranges, the best first. Then the most damaging layers stay in float, ever more of them. Then a few
epochs of quantization-aware training. The first way that passes the artefact's gate is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import onnx

from edgewright.export.candidates import Candidate
from edgewright.export.floats import ir_candidate
from edgewright.export.openvino_ir import quantize_ir, serialize_ir, to_ir
from edgewright.export.quantization.pixels import PixelForm
from edgewright.export.quantization.profiles import ORT_X86, TRT, Profile
from edgewright.export.quantization.workshop import Workshop
from edgewright.export.trt_lint import lint_trt
from edgewright.runtime.preprocess import in_layout

__all__ = ["Train", "onnx_candidate", "onnx_ways", "openvino_ways"]

Train = Callable[[onnx.ModelProto, str], "onnx.ModelProto | None"]
"""Quantization-aware training of a Q/DQ graph, with a name for messages; None where it is not to be had."""

_IN_FLOAT = 0.5
"""At most this share of the layers stays in float; beyond, nothing is gained by INT8."""


def onnx_candidate(graph: onnx.ModelProto, profile: Profile, how: str) -> Candidate:
    """A Q/DQ graph as the artefact of its profile."""
    name = f"model.int8.{profile.name}"
    return Candidate(
        name,
        "tensorrt" if profile is TRT else "onnxruntime",
        "int8",
        "int8",
        profile.name,
        {f"{name}.onnx": graph.SerializeToString()},
        how,
        profile.pixels.layout,
        profile.machines,
        tuple(lint_trt(graph)) if profile is TRT else (),
    )


def onnx_ways(workshop: Workshop, profile: Profile, train: Train) -> Iterator[Candidate]:
    """Ways to make the ONNX artefact of a profile."""
    methods = [method for method, _ in workshop.methods(profile)]
    for method in methods:
        yield onnx_candidate(workshop.quantize(profile, method), profile, f"{method} ranges")
    best = methods[0]
    for worst in _growing([damage.name for damage in workshop.damage(profile)]):
        graph = workshop.quantize(profile, best, worst)
        yield onnx_candidate(graph, profile, f"{best} ranges, {_count(worst)} in float")
    trained = train(workshop.quantize(profile, best), profile.name)
    if trained is not None:
        yield onnx_candidate(trained, profile, f"{best} ranges, then trained")


def openvino_ways(
    workshop: Workshop,
    labels: Sequence[str],
    train: Train,
    by_speed: Callable[[Sequence[Candidate]], Sequence[Candidate]],
) -> Iterator[Candidate]:
    """Ways to make the OpenVINO artefact: by NNCF on its IR, or from ONNX Runtime's graph; the faster one first.

    NNCF's own is the rule. On CPUs where OpenVINO has no integer kernel for what NNCF leaves of a depthwise
    convolution, the other one is faster.
    """
    # Pixels by plane: OpenVINO is slower with a transposition inside.
    base = workshop.base(PixelForm("NCHW", symmetric=False))
    content = base.model.SerializeToString()

    def by_nncf(how: str, float_layers: Sequence[str] = (), *, quantiles: bool = False) -> Candidate:
        ir = to_ir(content, labels, workshop.spec, base.layout)
        planes = partial(in_layout, layout=base.layout)
        quantized = quantize_ir(ir, workshop.pixels, planes, float_layers=float_layers, quantiles=quantiles)
        found = ir_candidate("int8", "int8", serialize_ir(quantized))
        return replace(found, quantization=f"NNCF, {how}", layout=base.layout)

    def from_onnx(graph: onnx.ModelProto, how: str) -> Candidate:
        ir = to_ir(graph.SerializeToString(), labels, workshop.spec)
        found = ir_candidate("int8", "int8", serialize_ir(ir))
        return replace(found, quantization=f"ONNX Runtime's graph, {how}")

    best = workshop.methods(ORT_X86)[0][0]
    plain = [by_nncf("extremes"), from_onnx(workshop.quantize(ORT_X86, best), f"{best} ranges")]
    yield from by_speed(plain)
    yield by_nncf("quantiles", quantiles=True)
    for worst in _growing([damage.name for damage in workshop.damage(ORT_X86)]):
        yield by_nncf(f"extremes, {_count(worst)} in float", worst)
    trained = train(workshop.quantize(ORT_X86, best), ORT_X86.name)
    if trained is not None:
        yield from_onnx(trained, f"{best} ranges, then trained")


def _growing(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The first one, two, four, ... of the names."""
    count = 1
    while count <= _IN_FLOAT * len(names):
        yield names[:count]
        count *= 2


def _count(names: Sequence[str]) -> str:
    return "1 layer" if len(names) == 1 else f"{len(names)} layers"
