"""The processes that train together: one, or as many as `accelerate launch` or `torchrun` started.

Each process renders and computes its own share of every batch; gradients are averaged by PyTorch's
DistributedDataParallel. Evaluation is shared out by whole batches and put together again in the data's order, so that
it is the evaluation of one process, to the image. Only the first process speaks and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

from edgewright.runtime.console import be_quiet
from edgewright.runtime.errors import UsageError
from edgewright.runtime.extras import require
from edgewright.runtime.parallel import available_cores

__all__ = ["Processes", "join_processes", "launched_processes"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """Where a process stands among its peers."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def share(self, items: Iterable[Item]) -> Iterator[Item]:
        """Every `world`-th item, from the `rank`-th on."""
        return islice(items, self.rank, None, self.world)

    def gather(self, items: list[Item]) -> list[Item]:
        """The lists of all processes, joined in the order of their ranks; the same everywhere."""
        if self.world == 1:
            return items
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object(items)
        return gathered

    def agree(self, value: Item) -> Item:
        """The first process' value: what was measured there (time, say) must not be decided on differently elsewhere."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Until every process is here."""
        self.agree(None)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Element by element over the processes."""
        rows = self.gather([list(values)])
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the processes; share its parameters, call it instead."""
        if self.world == 1:
            return model
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None
        )


def launched_processes() -> int:
    """How many a launcher started, this one counted."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_processes(device: str) -> Processes:
    """Join the peers that a launcher started, or be alone; choose the device, and torch's threads on a CPU.

    Args:
        device: `auto`, or a name that torch knows. With several processes and a GPU, each takes the GPU of its local rank.

    Raises:
        UsageError: the device cannot be used.
    """
    if launched_processes() == 1:
        torch.set_num_threads(available_cores())
        return Processes(_device(device))
    require("train", "accelerate")
    from accelerate import PartialState

    state: Any = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    if state.process_index > 0:
        be_quiet()
    # Peers on the same machine share its cores.
    torch.set_num_threads(max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return Processes(state.device, state.process_index, state.num_processes)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"Device '{name}' cannot be used: {str(error).splitlines()[0]}. Use --device auto or cpu."
        ) from error
    return device
