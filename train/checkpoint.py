"""Tensors and training state on disk: whole or not there, without pickled code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from edgewright.runtime.errors import WeightsError
from edgewright.runtime.files import atomic_write

__all__ = ["read_state", "write_state", "write_tensors"]


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a .safetensors file in place of an earlier one.

    Raises:
        OSError: the disk is full or refuses; the earlier file is untouched.
    """
    # In memory first: the writers of both formats turn a full disk into errors of their own.
    atomic_write(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dicts in place of an earlier state; see :func:`write_tensors`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any] | None:
    """A state written by :func:`write_state`, or None where there is none.

    Raises:
        WeightsError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # The reader raises whatever the bytes lead it to.
    except Exception as error:
        raise WeightsError(
            f"The training state '{path}' is damaged ({type(error).__name__}). "
            "Delete it to continue from the stage before, or start again with --overwrite."
        ) from error
    return state
