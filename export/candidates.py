"""The artefacts that an export may put into a bundle, made from one float graph and one calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from edgewright.export.calibration import CalibrationSet
from edgewright.export.config import ExportConfig
from edgewright.export.openvino_ir import quantize_ir, serialize_ir, to_ir
from edgewright.export.quantize_onnx import quantize_ort_x86
from edgewright.export.source import ExportSource
from edgewright.runtime.backends import Backend, LoadRequest, load_backend

__all__ = ["Candidate", "ladders"]


@dataclass(frozen=True)
class Candidate:
    """An artefact before it is proven.

    Attributes:
        name: Path below `artefacts/` without suffix.
        files: Contents by path below `artefacts/`; the model first, its weights file second if there is one.
        quantization: For INT8: how it was made.
    """

    name: str
    backend: str
    precision: str
    profile: str | None
    files: Mapping[str, bytes]
    quantization: str | None = None

    def load(self, threads: int | None = None) -> Backend:
        """Load it from memory, as the runtime will."""
        model, *weights = self.files.values()
        request = LoadRequest(model, weights[0] if weights else None, self.precision, threads, self.name)
        return load_backend(self.backend, request)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(len(content) for content in self.files.values())


def ladders(
    model: onnx.ModelProto, source: ExportSource, calibration: CalibrationSet | None, config: ExportConfig
) -> dict[str, Sequence[Callable[[], Candidate]]]:
    """For every wanted artefact, ways to make it: the first that passes its gate is taken.

    Float artefacts have one. INT8 starts with every layer quantized; the next step leaves the stem in float. For
    OpenVINO that step takes ONNX Runtime's quantized graph, which loses least on MobileNets.
    """
    float_bytes = model.SerializeToString()

    def onnx_fp32() -> Candidate:
        return Candidate("model.fp32", "onnxruntime", "fp32", None, {"model.fp32.onnx": float_bytes})

    def openvino_fp32() -> Candidate:
        return _ir("fp32", serialize_ir(to_ir(float_bytes, source.labels, source.preprocess)))

    wanted: dict[tuple[str, str], tuple[str, Sequence[Callable[[], Candidate]]]] = {
        ("onnx", "fp32"): ("ONNX FP32", [onnx_fp32]),
        ("openvino", "fp32"): ("OpenVINO FP32", [openvino_fp32]),
    }
    if calibration is not None:
        pictures = calibration

        def qdq(float_stem: bool) -> bytes:
            content: bytes = quantize_ort_x86(model, pictures, float_stem=float_stem).SerializeToString()
            return content

        def onnx_int8(float_stem: bool) -> Candidate:
            name = "model.int8.ort-x86"
            how = "ONNX Runtime, " + ("stem in float" if float_stem else "all layers")
            return Candidate(name, "onnxruntime", "int8", "ort-x86", {f"{name}.onnx": qdq(float_stem)}, how)

        def openvino_int8() -> Candidate:
            ir = quantize_ir(to_ir(float_bytes, source.labels, source.preprocess), pictures)
            return _ir("int8", serialize_ir(ir), "NNCF, all layers")

        def openvino_int8_from_qdq() -> Candidate:
            ir = to_ir(qdq(True), source.labels, source.preprocess)
            return _ir("int8", serialize_ir(ir), "ONNX Runtime's graph, stem in float")

        wanted[("onnx", "int8")] = ("ONNX INT8", [lambda: onnx_int8(False), lambda: onnx_int8(True)])
        wanted[("openvino", "int8")] = ("OpenVINO INT8", [openvino_int8, openvino_int8_from_qdq])
    return {
        title: steps
        for (form, precision), (title, steps) in wanted.items()
        if form in config.formats and precision in config.precisions
    }


def _ir(precision: str, contents: tuple[bytes, bytes], quantization: str | None = None) -> Candidate:
    folder = f"openvino.{precision}"
    files = dict(zip((f"{folder}/model.xml", f"{folder}/model.bin"), contents, strict=True))
    return Candidate(folder, "openvino", precision, None, files, quantization)
