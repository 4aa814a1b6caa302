"""What is on disk is whole: the state as it was, or an error that says what to do."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgewright.runtime.errors import WeightsError
from edgewright.train.checkpoint import read_state, write_state, write_tensors

STATE = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "random": torch.get_rng_state(),
    "progress": {"epoch": 3, "best": 0.5, "records": [{"stage": "head", "lr": 1e-3}]},
    "nothing": None,
}


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    write_state(STATE, tmp_path / "tune.pt")
    found = read_state(tmp_path / "tune.pt")
    assert found is not None
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    assert torch.equal(found["random"], STATE["random"])
    assert (found["progress"], found["nothing"]) == (STATE["progress"], None)


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "tune.pt") is None


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 4)
    whole = torch.randn(4, 5)
    tensors = {
        "channels last": image.contiguous(memory_format=torch.channels_last),
        "transposed": whole.T,
        "a column of another": torch.randn(4, 5)[:, 1],
        "learned": torch.nn.Parameter(whole.clone()),
        "half": image.to(torch.bfloat16),
    }
    write_tensors(tensors, tmp_path / "best.safetensors")
    found = load_file(tmp_path / "best.safetensors")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_cut_off_state_is_damaged(tmp_path: Path, size: int) -> None:
    path = tmp_path / "tune.pt"
    write_state(STATE, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"The training state '.*tune.pt' is damaged .* Delete it to continue"):
        read_state(path)


@pytest.mark.parametrize("content", [b"no state", b"PK\x03\x04", b"\x80\x04."])
def test_something_else_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tune.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        read_state(tmp_path / "tune.pt")


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 0",)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": _Code()}, tmp_path / "tune.pt")
    with pytest.raises(WeightsError, match="UnpicklingError"):
        read_state(tmp_path / "tune.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Code()))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "plain.pt")


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow beyond 20 kB, as on a full disk; Python ignores the signal, and writing raises."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("name", ["tune.pt", "best.safetensors"])
def test_write_that_does_not_fit_keeps_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    def write(count: int) -> None:
        tensors = {"weight": torch.full((count,), float(count))}
        if path.suffix == ".pt":
            write_state(tensors, path)
        else:
            write_tensors(tensors, path)

    write(10)
    before = path.read_bytes()
    with pytest.raises(OSError, match="File too large") as caught:
        write(100_000)
    # The message of the command line is made of these two.
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
