"""From ONNX to an engine, with TensorRT 8.6 to 11.

What differs between the versions is asked of the module itself, by name, never by number: `create_network(1)` means
explicit batch in 8 and 10 but strong typing in 11. Precision is a builder flag before 11; from 11 on every network is
strongly typed and its precision is the graph's. A strongly typed network is never asked for before 11, so the two ways
cannot be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError
from edgewright.runtime.tensorrt.library import make_logger
from edgewright.runtime.tensorrt.options import BuildOptions

__all__ = ["BuiltEngine", "build_engine"]

_MIB = 1024 * 1024


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gives.

    Attributes:
        plan: The serialized engine.
        timing_cache: Kernel times measured so far, to be given to the next build; None if none were kept.
        messages: What TensorRT said meanwhile.
    """

    plan: bytes
    timing_cache: bytes | None
    messages: tuple[str, ...]


def build_engine(
    trt: Any, onnx: bytes, options: BuildOptions, *, name: str, timing_cache: bytes | None = None
) -> BuiltEngine:
    """Build an engine for the GPU of this machine.

    Args:
        trt: The module `tensorrt`.
        onnx: The model; its batch axis may be free.
        options: What to build for.
        name: For messages.
        timing_cache: Kernel times of an earlier build on this device.

    Raises:
        BackendError: no GPU, a graph that TensorRT does not take or that lacks the precision asked for, or no engine
            within these limits.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:
        # pybind11's way of saying that the library returned no builder.
        raise BackendError(
            f"TensorRT {trt.__version__} cannot start here ({error}). Expected an NVIDIA GPU and a driver new enough for it."
        ) from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise BackendError(f"TensorRT {trt.__version__} does not take '{name}': {_parser_errors(parser, logger)}")
    _require_precision(trt, network, options, name)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * _MIB)
    _set_flags(trt, config, options)
    if options.dla is not None:
        _use_dla(trt, builder, config, options.dla)
    _add_profile(trt, builder, config, network, options)
    if options.timing_cache:
        _attach_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reasons = " ".join(list(logger.errors)[-3:]) or "it gave no reason"
        raise BackendError(
            f"TensorRT {trt.__version__} could not build '{name}' in {options.precision}: {reasons}. "
            "Try a larger --workspace-mb, a smaller largest batch, or another precision."
        )
    times = config.get_timing_cache() if options.timing_cache else None
    kept = None if times is None else bytes(times.serialize())
    return BuiltEngine(bytes(plan), kept, tuple(logger.messages))


def _network_flags(trt: Any) -> int:
    """Explicit batch where it has to be asked for; networks have had no other kind since 10."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_errors(parser: Any, logger: Any) -> str:
    """Every complaint of the parser, with the node where it knows one."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node {error.node()}"
        if hasattr(error, "node_name"):
            node = f"{error.node_operator()} '{error.node_name()}'"
        found.append(f"{node}: {error.desc()}")
    return "; ".join(found) or " ".join(logger.errors) or "the parser gave no reason"


def _require_precision(trt: Any, network: Any, options: BuildOptions, name: str) -> None:
    """Refuse a graph that would silently be executed in another precision than the one asked for.

    Raises:
        BackendError: see above.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    if options.precision == "int8":
        if not any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
            raise BackendError(
                f"'{name}' has no QuantizeLinear nodes, so TensorRT would not run it in int8. "
                "Compile the artefact that was exported for it: edgewright export … --formats tensorrt --precisions int8."
            )
        return
    typed = not hasattr(trt.BuilderFlag, "FP16")
    halves = any(
        layer.get_output(index).dtype == trt.DataType.HALF for layer in layers for index in range(layer.num_outputs)
    )
    if options.precision == "fp16" and typed and not halves:
        raise BackendError(
            f"'{name}' computes in fp32, and TensorRT {trt.__version__} takes the precision from the graph alone. "
            "Compile the fp16 artefact (model.fp16), or export with --precisions fp16."
        )
    if options.precision == "fp32" and halves:
        raise BackendError(f"'{name}' computes in fp16, not in fp32 as asked for. Compile the fp32 artefact.")


def _set_flags(trt: Any, config: Any, options: BuildOptions) -> None:
    flags = trt.BuilderFlag
    # On by default, and then fp32 means 10 bits of mantissa on Ampere and later.
    config.clear_flag(flags.TF32)
    precision = {"fp16": "FP16", "int8": "INT8"}.get(options.precision)
    if precision is not None and hasattr(flags, precision):
        config.set_flag(getattr(flags, precision))
    if not options.timing_cache:
        config.set_flag(flags.DISABLE_TIMING_CACHE)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    cores = builder.num_DLA_cores
    if core >= cores:
        raise BackendError(
            f"DLA core {core} was asked for; TensorRT {trt.__version__} finds {cores} here. "
            "Leave out --dla to build for the GPU."
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _add_profile(trt: Any, builder: Any, config: Any, network: Any, options: BuildOptions) -> None:
    """One optimization profile for all inputs whose first axis, the batch, is free.

    Raises:
        BackendError: another axis is free too, or TensorRT refuses the sizes.
    """
    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise BackendError(f"Input '{tensor.name}' has the shape {shape}. Expected a free batch axis at most.")
        if shape[:1] == (-1,):
            shapes[tensor.name] = shape[1:]
    if not shapes:
        return
    batch = options.batch
    profile = builder.create_optimization_profile()
    for name, rest in shapes.items():
        sizes = [(size, *rest) for size in (batch.minimum, batch.optimum, batch.maximum)]
        try:
            profile.set_shape(name, *(trt.Dims(size) for size in sizes))
        except ValueError as error:
            raise BackendError(f"TensorRT refused the shapes {sizes} for '{name}': {error}") from error
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT refused the batch sizes {batch.minimum},{batch.optimum},{batch.maximum}.")


def _attach_timings(config: Any, known: bytes | None) -> None:
    """Start from the kernel times of earlier builds; from none if TensorRT does not take them."""
    if known:
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return
        warn("the kept timing cache belongs to another GPU or TensorRT, or is damaged; starting a new one")
    if not config.set_timing_cache(config.create_timing_cache(b""), False):
        warn("TensorRT took no timing cache; this build measures everything anew")
