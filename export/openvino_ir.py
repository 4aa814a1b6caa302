"""OpenVINO IR from the float ONNX file, and its INT8 form by NNCF."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from edgewright.export.calibration import CalibrationSet
from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.quiet import quiet_loggers
from edgewright.runtime.preprocess import Preprocess
from edgewright.runtime.telemetry import forbid_telemetry

__all__ = ["quantize_ir", "serialize_ir", "to_ir"]


def to_ir(onnx_bytes: bytes, labels: Sequence[str], spec: Preprocess) -> Any:
    """An `ov.Model` from ONNX, with the `model_info` that Model API reads.

    Normalisation is in the graph, so `mean_values` and `scale_values` are the neutral ones: a reader that applies
    them again changes nothing. The true statistics stand in the manifest.
    """
    model = ov.Core().read_model(model=onnx_bytes)
    model.get_parameters()[0].set_layout(ov.Layout("NHWC"))
    info: dict[str, str] = {
        "model_type": "Classification",
        # Model API separates labels by spaces, and writes a space inside a label as an underscore.
        "labels": " ".join(label.replace(" ", "_") for label in labels),
        "resize_type": "crop",
        "mean_values": "0.0 0.0 0.0",
        "scale_values": "1.0 1.0 1.0",
        "reverse_input_channels": "True",
        "multilabel": "False",
        "output_raw_scores": "True",
        "edgewright_resize": str(spec.resize),
        "edgewright_crop": str(spec.crop),
        "edgewright_interpolation": spec.interpolation,
    }
    for key, value in info.items():
        model.set_rt_info(value, ["model_info", key])
    return model


def quantize_ir(model: Any, calibration: CalibrationSet) -> Any:
    """Post-training quantization with NNCF, weights and activations in 8 bits.

    As for ONNX Runtime, weights use 7 bits so that a CPU without VNNI does not saturate (`OverflowFix.ENABLE`).
    """
    forbid_telemetry()
    with _quiet_nncf():
        import nncf

        dataset = nncf.Dataset([pixels[None] for pixels in calibration.pixels], lambda pixels: {INPUT_NAME: pixels})
        return nncf.quantize(
            model,
            dataset,
            subset_size=len(calibration.pixels),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            fast_bias_correction=True,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )


def serialize_ir(model: Any) -> tuple[bytes, bytes]:
    """The bytes of the .xml and of the .bin file, weights as they are (no hidden FP16 compression)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """NNCF draws its progress on stdout, where our JSON goes; importing it makes torch look for CUDA, aloud."""
    with quiet_loggers("nncf", "torch.utils.cpp_extension"), contextlib.redirect_stdout(io.StringIO()):
        yield
