"""What an engine is built for: precision, batch sizes, memory, device; and the same as trtexec's flags."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from edgewright.runtime.errors import UsageError

__all__ = ["BatchProfile", "BuildOptions", "Precision", "as_precision", "trtexec_command"]

Precision = Literal["fp32", "fp16", "int8"]

_LARGEST_BATCH = 4096
_LARGEST_WORKSPACE_MB = 1024 * 1024


def as_precision(name: str) -> Precision:
    """`name`, if it is a precision that engines are built in.

    Raises:
        UsageError: it is not.
    """
    if name not in get_args(Precision):
        raise UsageError(
            f"TensorRT engines are not built in '{name}'. Expected one of {', '.join(get_args(Precision))}."
        )
    return cast("Precision", name)


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes an engine accepts: the smallest, the one it is tuned for, the largest."""

    minimum: int = 1
    optimum: int = 1
    maximum: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum <= _LARGEST_BATCH:
            raise UsageError(
                f"Batch sizes {self.minimum},{self.optimum},{self.maximum}. "
                f"Expected MIN <= OPT <= MAX, from 1 to {_LARGEST_BATCH}."
            )

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """From `MIN,OPT,MAX`, or one number for an engine of that batch size only.

        Raises:
            UsageError: something else.
        """
        parts = text.split(",")
        if len(parts) not in (1, 3) or not all(part.strip().isdecimal() and len(part) < 9 for part in parts):
            raise UsageError(f"Batch sizes '{text}'. Expected MIN,OPT,MAX such as 1,8,32, or one number.")
        numbers = [int(part) for part in parts]
        return cls(*(numbers if len(numbers) == 3 else numbers * 3))


@dataclass(frozen=True)
class BuildOptions:
    """Everything about a build that the ONNX file does not say.

    Attributes:
        precision: What is executed. fp32 means that: TF32, which TensorRT would use by itself, is turned off.
        batch: For graphs whose batch axis is free.
        workspace_mb: Most scratch memory that a layer may use, in MiB.
        timing_cache: Keep measured kernel times on the device, so that the next build is quicker.
        dla: Core of the deep learning accelerator to build for; layers it cannot run go to the GPU.
        version_compatible: The engine also loads in later versions of TensorRT; may be slower.
        hardware_compatible: The engine also runs on other GPUs, Ampere and later; may be slower.
    """

    precision: Precision
    batch: BatchProfile = BatchProfile()
    workspace_mb: int = 1024
    timing_cache: bool = True
    dla: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workspace_mb <= _LARGEST_WORKSPACE_MB:
            raise UsageError(f"A workspace of {self.workspace_mb} MiB. Expected 1 to {_LARGEST_WORKSPACE_MB}.")
        if self.dla is not None and self.dla < 0:
            raise UsageError(f"DLA core {self.dla}. Expected 0 or more.")
        if self.dla is not None and self.precision == "fp32":
            raise UsageError("A DLA computes in fp16 or int8, not in fp32. Choose --precision fp16 or int8.")


def trtexec_command(
    options: BuildOptions,
    *,
    onnx: str,
    engine: str,
    timing_cache: str,
    inputs: Mapping[str, Sequence[int]],
    major: int,
) -> str:
    """The `trtexec` command line that builds what :func:`~edgewright.runtime.tensorrt.builder.build_engine` builds.

    Args:
        options: What is built for.
        onnx: Path of the model file.
        engine: Path of the engine to be written.
        timing_cache: Path of the timing cache, used where the options ask for one.
        inputs: Shape of each input, -1 for the batch axis.
        major: TensorRT's major version: from 11 on, trtexec has no precision flags; the precision is in the graph.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}"]
    dynamic = {name: shape for name, shape in inputs.items() if -1 in shape}
    for flag, size in (
        ("minShapes", options.batch.minimum),
        ("optShapes", options.batch.optimum),
        ("maxShapes", options.batch.maximum),
    ):
        if dynamic:
            shapes = (
                f"{name}:" + "x".join(str(size if axis == -1 else axis) for axis in shape)
                for name, shape in dynamic.items()
            )
            words.append(f"--{flag}={','.join(shapes)}")
    if major < 11 and options.precision != "fp32":
        words.append(f"--{options.precision}")
    words += ["--noTF32", f"--memPoolSize=workspace:{options.workspace_mb}", "--profilingVerbosity=detailed"]
    if options.timing_cache:
        words.append(f"--timingCacheFile={timing_cache}")
    else:
        words.append("--noBuilderCache")
    if options.dla is not None:
        words += [f"--useDLACore={options.dla}", "--allowGPUFallback"]
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.hardware_compatible:
        words.append("--hardwareCompatibilityLevel=ampere+")
    return shlex.join([*words, "--skipInference"])
