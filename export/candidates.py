"""The artefacts that an export may put into a bundle, made from one float graph and one calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from edgewright.export.calibration import CalibrationSet
from edgewright.export.config import ExportConfig
from edgewright.export.openvino_ir import quantize_ir, serialize_ir, to_ir
from edgewright.export.quantize_onnx import quantize_ort_x86
from edgewright.export.source import ExportSource
from edgewright.runtime.backends import Backend, LoadRequest, load_backend
from edgewright.runtime.console import notice

__all__ = ["Candidate", "make_candidates"]


@dataclass(frozen=True)
class Candidate:
    """An artefact before it is proven.

    Attributes:
        name: Path below `artefacts/` without suffix.
        files: Contents by path below `artefacts/`; the model first, its weights file second if there is one.
    """

    name: str
    backend: str
    precision: str
    profile: str | None
    files: Mapping[str, bytes]

    def load(self, threads: int | None = None) -> Backend:
        """Load it from memory, as the runtime will."""
        model, *weights = self.files.values()
        request = LoadRequest(model, weights[0] if weights else None, self.precision, threads, self.name)
        return load_backend(self.backend, request)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(len(content) for content in self.files.values())


def make_candidates(
    model: onnx.ModelProto, source: ExportSource, calibration: CalibrationSet | None, config: ExportConfig
) -> list[Candidate]:
    """One candidate per wanted format and precision."""
    float_bytes = model.SerializeToString()

    def onnx_fp32() -> Candidate:
        return Candidate("model.fp32", "onnxruntime", "fp32", None, {"model.fp32.onnx": float_bytes})

    def onnx_int8() -> Candidate:
        assert calibration is not None
        content = quantize_ort_x86(model, calibration).SerializeToString()
        return Candidate("model.int8.ort-x86", "onnxruntime", "int8", "ort-x86", {"model.int8.ort-x86.onnx": content})

    def openvino_fp32() -> Candidate:
        return _ir("fp32", serialize_ir(to_ir(float_bytes, source.labels, source.preprocess)))

    def openvino_int8() -> Candidate:
        assert calibration is not None
        ir = quantize_ir(to_ir(float_bytes, source.labels, source.preprocess), calibration)
        return _ir("int8", serialize_ir(ir))

    makers: dict[tuple[str, str], Callable[[], Candidate]] = {
        ("onnx", "fp32"): onnx_fp32,
        ("onnx", "int8"): onnx_int8,
        ("openvino", "fp32"): openvino_fp32,
        ("openvino", "int8"): openvino_int8,
    }
    candidates = []
    for (form, precision), make in makers.items():
        if form in config.formats and precision in config.precisions:
            notice(f"making {form} {precision}")
            candidates.append(make())
    return candidates


def _ir(precision: str, contents: tuple[bytes, bytes]) -> Candidate:
    folder = f"openvino.{precision}"
    files = dict(zip((f"{folder}/model.xml", f"{folder}/model.bin"), contents, strict=True))
    return Candidate(folder, "openvino", precision, None, files)
