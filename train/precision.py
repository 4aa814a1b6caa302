"""What training computes in: measured where there is a choice, since bf16 is not faster for every network."""

from __future__ import annotations

import copy
import time

import torch
from torch import nn
from torch.nn import functional

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError

__all__ = ["PRECISIONS", "choose_precision"]

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Data types by the names that people use."""

_WORTH_IT = 1.1
"""How much faster bf16 must be to be chosen over fp32; less may be chance, and runs should repeat."""

_STEPS = 3


def choose_precision(wanted: str, network: nn.Module, size: int, batch: int, device: torch.device) -> torch.dtype:
    """The data type of training.

    `auto` is bf16 (fp16 where that is missing) on a GPU. On a CPU with instructions for bf16, training steps of both
    are timed in turn; on any other CPU it is fp32.

    Args:
        wanted: auto, fp32, bf16 or fp16.
        network: uint8 images (N, size, size, 3) to logits; not changed.
        size: Input size in pixels.
        batch: Pictures per step.
        device: Where training will run.

    Raises:
        UsageError: fp16 on a CPU, which has no instructions for it.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU. Use fp32, bf16 or auto on a CPU.")
    if wanted != "auto":
        return next(dtype for dtype, name in PRECISIONS.items() if name == wanted)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu" or not _cpu_has_bf16():
        return torch.float32
    seconds = _step_seconds(network, size, batch)
    chosen = torch.bfloat16 if seconds[torch.float32] > _WORTH_IT * seconds[torch.bfloat16] else torch.float32
    notice(
        f"precision: {PRECISIONS[chosen]} (a step takes "
        f"{seconds[torch.bfloat16]:.2f} s in bf16, {seconds[torch.float32]:.2f} s in fp32)"
    )
    return chosen


def _cpu_has_bf16() -> bool:
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _step_seconds(network: nn.Module, size: int, batch: int) -> dict[torch.dtype, float]:
    trial = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    pixels = torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    labels = torch.zeros(batch, dtype=torch.int64)
    seconds: dict[torch.dtype, float] = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    random = torch.get_rng_state()
    for _ in range(1 + _STEPS):
        for dtype in seconds:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = functional.cross_entropy(trial(pixels).float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - started)
    torch.set_rng_state(random)
    return seconds
