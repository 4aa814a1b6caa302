"""What each engine wants of a Q/DQ graph.

Every choice was measured or is demanded by the engine's documentation: ONNX Runtime ("Quantize ONNX models"), TensorRT
("Working with Quantized Types": explicit quantization, symmetric, no quantized bias).
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxruntime.quantization import QuantType

from edgewright.export.quantization.pixels import PixelForm

__all__ = ["ORT_ARM", "ORT_X86", "PROFILES", "TRT", "Profile"]


@dataclass(frozen=True)
class Profile:
    """Placement and number format of one engine's Q/DQ nodes. Weights are int8, per output channel, symmetric.

    Attributes:
        name: As in the artefact's name.
        machines: `platform.machine()` of those that run it as it is meant; none: it is no CPU's.
        activation: Number format of activations.
        symmetric: Whether the zero point of activations is 0.
        reduce_range: Whether weights use 7 of their 8 bits. On a CPU without VNNI the sum of two products of full range
            overflows 16 bits and saturates, which ruins accuracy on just those devices and shows on no other.
        quantize_bias: Whether biases are int32 with the scale of the product.
        inputs_only: Whether only inputs of layers are quantized, so that an engine may fuse what follows in float.
        weight_pairs: Whether weights are stored in float with a Q/DQ pair, which TensorRT 8 demands.
        pixels: How the graph takes its input.
    """

    name: str
    machines: tuple[str, ...]
    activation: QuantType
    symmetric: bool
    reduce_range: bool
    quantize_bias: bool
    inputs_only: bool
    weight_pairs: bool
    pixels: PixelForm


ORT_X86 = Profile(
    name="ort-x86",
    machines=("x86_64", "AMD64"),
    activation=QuantType.QUInt8,
    symmetric=False,
    reduce_range=True,
    quantize_bias=True,
    inputs_only=False,
    weight_pairs=False,
    pixels=PixelForm("NHWC", symmetric=False),
)

ORT_ARM = Profile(
    name="ort-arm",
    machines=("aarch64", "arm64", "ARM64"),
    activation=QuantType.QInt8,
    symmetric=False,
    reduce_range=False,
    quantize_bias=True,
    inputs_only=False,
    weight_pairs=False,
    pixels=PixelForm("NHWC", symmetric=False),
)

TRT = Profile(
    name="trt",
    machines=(),
    activation=QuantType.QInt8,
    symmetric=True,
    reduce_range=False,
    quantize_bias=False,
    inputs_only=True,
    weight_pairs=True,
    pixels=PixelForm("NHWC", symmetric=True),
)

PROFILES = {profile.name: profile for profile in (ORT_X86, ORT_ARM, TRT)}
