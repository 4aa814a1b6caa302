"""An engine for a model on this device: the kept one if it is still right, else a new one, with the reason said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgewright.runtime.console import notice, warn
from edgewright.runtime.tensorrt.builder import build_engine
from edgewright.runtime.tensorrt.cache import EngineCache, EngineKey, EngineRecord, Found, make_key
from edgewright.runtime.tensorrt.cuda import Cuda
from edgewright.runtime.tensorrt.options import BuildOptions
from edgewright.runtime.tensorrt.runner import EngineRefusedError, EngineRunner

__all__ = ["PreparedEngine", "prepare_engine"]


@dataclass(frozen=True)
class PreparedEngine:
    """A loaded engine and where it came from.

    Attributes:
        runner: Ready to run; the caller closes it.
        record: What is written beside the engine's file; its key says what it was built for.
        state: "fresh" if the engine was taken from the cache; else why a new one was built: "absent", "stale",
            "foreign", "corrupt" or "forced".
        reason: That in words, where there is more to say.
    """

    runner: EngineRunner
    record: EngineRecord
    state: str
    reason: str


def prepare_engine(
    trt: Any,
    cuda: Cuda,
    onnx: bytes,
    options: BuildOptions,
    *,
    name: str,
    cache: EngineCache | None = None,
    as_built: bool = False,
    force: bool = False,
) -> PreparedEngine:
    """Load the kept engine of `onnx` for these options and this device, or build, keep and load a new one.

    Args:
        trt: The module `tensorrt`.
        cuda: CUDA's runtime.
        onnx: The model.
        options: What is wanted.
        name: For messages.
        cache: Where engines are kept; by default the device's cache.
        as_built: Take a kept engine, or build it again, with the batch sizes and flags it was compiled with; `options`
            count only where there is none.
        force: Build in any case.

    Raises:
        BackendError: there is no GPU, TensorRT cannot build the model, or CUDA failed.
    """
    cache = EngineCache() if cache is None else cache
    device = cuda.device()
    key = make_key(onnx, options, device, trt.__version__)
    found = cache.find(key, as_built=as_built)
    if found.plan is not None and not force:
        assert found.record is not None
        try:
            return PreparedEngine(_load(trt, cuda, found.plan, found.record.key, name), found.record, "fresh", "")
        except EngineRefusedError as error:
            found = Found(None, "corrupt", f"TensorRT does not load it ({error})", found.record)
    if found.state == "absent":
        notice(f"building a TensorRT engine of '{name}' for {device.name}: once on this device, often minutes")
    elif found.state != "fresh":
        warn(f"the kept TensorRT engine of '{name}' is {found.state}: {found.reason}. It is built again")
    if as_built and found.record is not None:
        options = found.record.key.options()
        key = make_key(onnx, options, device, trt.__version__)
    start = time.perf_counter()
    timings = cache.timings(key) if options.timing_cache else None
    built = build_engine(trt, onnx, options, name=name, timing_cache=timings)
    seconds = time.perf_counter() - start
    runner = _load(trt, cuda, built.plan, key, name)
    record = cache.record(key, built.plan, seconds)
    try:
        cache.store(record, built.plan)
        if built.timing_cache is not None:
            cache.store_timings(key, built.timing_cache)
    except OSError as error:
        # It runs all the same; it only has to be built again next time.
        warn(f"the engine of '{name}' cannot be kept in '{cache.folder}': {error.strerror or error}")
    return PreparedEngine(runner, record, "forced" if found.state == "fresh" else found.state, found.reason)


def _load(trt: Any, cuda: Cuda, plan: bytes, key: EngineKey, name: str) -> EngineRunner:
    return EngineRunner(trt, cuda, plan, name=name, dla=key.dla, host_code=key.version_compatible)
