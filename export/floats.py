"""The float artefacts."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgewright.export.candidates import Candidate
from edgewright.export.config import ExportConfig
from edgewright.export.executed import executed_by_onnxruntime, prevailing
from edgewright.export.fp16 import to_fp16
from edgewright.export.openvino_ir import serialize_ir, to_ir
from edgewright.export.source import ExportSource
from edgewright.runtime.backends.openvino import executable_precisions
from edgewright.runtime.console import notice
from edgewright.runtime.manifest import Precision

__all__ = ["float_candidates"]


def float_candidates(model: onnx.ModelProto, source: ExportSource, config: ExportConfig) -> Iterator[Candidate]:
    """Those that `config` asks for and, of OpenVINO in bf16, that this CPU can execute."""
    content = model.SerializeToString()
    if "fp32" in config.precisions and {"onnx", "tensorrt"} & set(config.formats):
        yield Candidate("model.fp32", "onnxruntime", "fp32", "fp32", None, {"model.fp32.onnx": content})
    if "fp16" in config.precisions and {"onnx", "tensorrt"} & set(config.formats):
        half = to_fp16(model).SerializeToString()
        # Where ONNX Runtime has no FP16 arithmetic, as on x86, it casts to FP32 around every layer.
        executed: Precision = "fp16" if prevailing(executed_by_onnxruntime(half)) == "fp16" else "fp32"
        yield Candidate("model.fp16", "onnxruntime", "fp16", executed, None, {"model.fp16.onnx": half})
    if "openvino" not in config.formats:
        return
    native = executable_precisions()
    if "fp32" in config.precisions:
        yield _ir(content, source, "fp32", "fp32")
    if "fp16" in config.precisions:
        yield _ir(content, source, "fp16", "fp16" if "fp16" in native else "fp32")
    if "bf16" in config.precisions:
        if "bf16" in native:
            yield _ir(content, source, "bf16", "bf16")
        else:
            notice("no bf16 artefact: this CPU does not compute in bf16, so that it could not be proven here")


def _ir(content: bytes, source: ExportSource, precision: Precision, executed: Precision) -> Candidate:
    ir = to_ir(content, source.labels, source.preprocess)
    # bf16 keeps its weights in FP32: OpenVINO rounds them when it loads them, to other values than FP16 has.
    return ir_candidate(precision, executed, serialize_ir(ir, half=precision == "fp16"))


def ir_candidate(precision: Precision, executed: Precision, contents: tuple[bytes, bytes]) -> Candidate:
    """An OpenVINO artefact from its .xml and .bin."""
    folder = f"openvino.{precision}"
    files = dict(zip((f"{folder}/model.xml", f"{folder}/model.bin"), contents, strict=True))
    return Candidate(folder, "openvino", precision, executed, None, files)
