"""OpenVINO IR from ONNX files, and its INT8 form by NNCF."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.quiet import quiet_loggers
from edgewright.runtime.manifest import Layout
from edgewright.runtime.preprocess import Preprocess
from edgewright.runtime.silent_openvino import ov

__all__ = ["quantize_ir", "serialize_ir", "to_ir"]


def to_ir(onnx_bytes: bytes, labels: Sequence[str], spec: Preprocess, layout: Layout = "NHWC") -> Any:
    """An `ov.Model` from ONNX, with the `model_info` that Model API reads.

    Normalisation is in the graph, so `mean_values` and `scale_values` are the neutral ones: a reader that applies
    them again changes nothing. The true statistics stand in the manifest.
    """
    model = ov.Core().read_model(model=onnx_bytes)
    model.get_parameters()[0].set_layout(ov.Layout(layout))
    info: dict[str, str] = {
        "model_type": "Classification",
        # Model API separates labels by white space, and writes it inside a label as an underscore.
        "labels": " ".join(re.sub(r"\s", "_", label) for label in labels),
        "topk": str(min(5, len(labels))),
        "resize_type": "crop",
        "interpolation_mode": {"bilinear": "LINEAR", "bicubic": "CUBIC"}[spec.interpolation],
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


def quantize_ir(
    model: Any,
    pixels: npt.NDArray[np.uint8],
    prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]],
    *,
    float_layers: Sequence[str] = (),
    quantiles: bool = False,
) -> Any:
    """Post-training quantization with NNCF, weights and activations in 8 bits.

    As for ONNX Runtime, weights use 7 bits so that a CPU without VNNI does not saturate (`OverflowFix.ENABLE`).

    Args:
        model: From :func:`to_ir`; is not changed.
        pixels: Of the calibration pictures, uint8 (N, height, width, 3).
        prepare: Makes the model's input of one of them (1, height, width, 3).
        float_layers: Names of operations that stay in float.
        quantiles: Draw ranges from quantiles instead of extremes, so that outliers do not stretch them.
    """
    with _quiet_nncf():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        wanted = set(float_layers)
        # The product of a convolution with a bias is called so; the layer's own name is its sum's.
        names = [operation.get_friendly_name() for operation in model.get_ops()]
        ignored = [name for name in names if name.removesuffix("/WithoutBiases") in wanted]
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        if quantiles:
            advanced.activations_range_estimator_params = RangeEstimatorParametersSet.MEAN_QUANTILE
        dataset = nncf.Dataset([prepare(picture[None]) for picture in pixels], lambda picture: {INPUT_NAME: picture})
        return nncf.quantize(
            model,
            dataset,
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=advanced,
        )


def serialize_ir(model: Any, *, half: bool = False) -> tuple[bytes, bytes]:
    """The bytes of the .xml and of the .bin file; weights as they are, or stored in FP16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """NNCF draws its progress on stdout, where our JSON goes; importing it makes torch look for CUDA, aloud."""
    with quiet_loggers("nncf", "torch.utils.cpp_extension"), contextlib.redirect_stdout(io.StringIO()):
        yield
