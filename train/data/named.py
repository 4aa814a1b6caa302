"""Public datasets by name: torchvision fetches and checks them, then they are kept as a folder of PNG pictures.

A folder, because then they are read, split, checked, exported and validated like everybody's pictures, and 60,000 of
them take no more memory than their names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from edgewright.runtime.console import notice, track
from edgewright.runtime.errors import DataError
from edgewright.runtime.extras import require
from edgewright.runtime.files import temporary_folder
from edgewright.train.data.folders import list_folder
from edgewright.train.data.listing import Listing, divide, refuse
from edgewright.train.data.samples import ImageData

__all__ = ["NAMES", "Pictures", "default_data_root", "list_named", "read_named", "write_pictures"]

_CONNECT_S = 30.0
"""A network that swallows packets is given up after this long; torchvision alone would wait for minutes."""


@dataclass(frozen=True)
class _Named:
    """`kind`: torchvision's class. `mirrored`: as in :class:`ImageData`."""

    kind: str
    mirrored: bool


_KNOWN = {
    "mnist": _Named("MNIST", mirrored=False),
    "fashion_mnist": _Named("FashionMNIST", mirrored=True),
    "cifar10": _Named("CIFAR10", mirrored=True),
    "cifar100": _Named("CIFAR100", mirrored=True),
}

NAMES = tuple(_KNOWN)
"""Datasets that `edgewright train` knows by name, besides `digits`."""


class Pictures(Protocol):
    """What is needed of one of torchvision's datasets: class names, and (picture, label) by index."""

    classes: Sequence[str]

    def __len__(self) -> int:
        """Number of pictures."""

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """A picture and its label."""


def default_data_root() -> Path:
    """`$XDG_CACHE_HOME/edgewright/datasets`, `~/.cache/edgewright/datasets` where that is not set."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "edgewright" / "datasets"


def read_named(name: str, *, data_root: Path | None, seed: int, val_fraction: float, test_fraction: float) -> ImageData:
    """One of :data:`NAMES` with its own test split; `val` is split off from `train`.

    `origin` is the folder `<data_root>/<name>-images`, in which the pictures are found again later.

    Raises:
        DataError: it is not there and cannot be downloaded, or its files are damaged.
    """
    listing = list_named(name, data_root)
    data = divide(listing, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    return replace(data, mirrored=_KNOWN[name].mirrored, resize_to_crop=True)


def list_named(name: str, data_root: Path | None) -> Listing:
    """The pictures of one of :data:`NAMES`, converted on first use; see :func:`read_named`."""
    root = (data_root or default_data_root()).resolve()
    folder = root / f"{name}-images"
    if not folder.is_dir():
        require("train", "torch", "torchvision")
        _convert(name, root, folder)
    return list_folder(folder, refuse)


def _convert(name: str, root: Path, folder: Path) -> None:
    """Make `folder` with all pictures, or nothing: it is complete before it gets its name."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"No folder for datasets at '{root}': {error.strerror}. Choose another: --data-root."
        ) from error
    with temporary_folder(folder) as temporary:
        complete = temporary / "complete"
        for split in ("train", "test"):
            write_pictures(_fetch(name, root, split), complete / split, f"{name}: {split} pictures")
        # One call for all files: to sync each of 70,000 on its own takes minutes.
        if hasattr(os, "sync"):
            os.sync()
        try:
            complete.replace(folder)
        except OSError:
            # Another process was faster; its folder is as complete as this one.
            if not folder.is_dir():
                raise


def write_pictures(pictures: Pictures, folder: Path, description: str) -> None:
    """Write `folder/<class>/<index>.png`, one picture in memory at a time (what torchvision holds aside)."""
    names = [_folder_name(name) for name in pictures.classes]
    for name in names:
        (folder / name).mkdir(parents=True)
    for index in track(range(len(pictures)), description, len(pictures)):
        image, label = pictures[index]
        image.save(folder / names[label] / f"{index:05d}.png")


def _folder_name(name: str) -> str:
    """MNIST's '0 - zero' is the class '0', as in `digits`; 'T-shirt/top' cannot be a folder."""
    return name.partition(" - ")[0].replace("/", "-")


def _fetch(name: str, root: Path, split: str) -> Pictures:
    """Torchvision's dataset: what is in `root`, else downloaded to it."""
    from torchvision import datasets

    kind: Any = getattr(datasets, _KNOWN[name].kind)
    train = split == "train"
    with _quiet():
        try:
            found = kind(root, train=train)
        except RuntimeError:  # "Dataset not found or corrupted"
            notice(f"{name} is not in '{root}' as torchvision keeps it: unpacked if it is there, else downloaded")
            try:
                found = kind(root, train=train, download=True)
            except Exception as error:  # no network, no disk, a wrong checksum, a broken archive, a damaged file
                why = " ".join(str(error).split()).rstrip(".")
                raise DataError(
                    f"{name} can neither be read from '{root}' nor downloaded to it: {why}. {_expected(kind, root)}"
                ) from error
        # Damage behind a right name: torchvision's parser raises whatever it leads to.
        except Exception as error:
            raise DataError(f"The files of {name} in '{root}' are damaged: {error}. {_expected(kind, root)}") from error
    labels = [int(label) for label in found.targets]
    if len(labels) != len(found) or not set(labels) <= set(range(len(found.classes))):
        raise DataError(
            f"The files of {name} in '{root}' are damaged: {len(found)} {split} pictures with {len(labels)} labels from "
            f"{min(labels, default=None)} to {max(labels, default=None)}. {_expected(kind, root)}"
        )
    pictures: Pictures = found
    return pictures


def _expected(kind: Any, root: Path) -> str:
    """What torchvision looks for, and where."""
    if hasattr(kind, "resources"):
        files, folder = ", ".join(file for file, _ in kind.resources), root / kind.__name__ / "raw"
    else:
        files, folder = kind.filename, root
    return f"Expected {files} in '{folder}': put them there, or name the folder that has them with --data-root."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Stdout kept for results, a limit on waiting for the network, and NumPy silent about CIFAR's age."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            # CIFAR's files were written by a NumPy of 2009, whose types newer ones warn about.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            yield
    finally:
        socket.setdefaulttimeout(before)
