"""What `edgewright deploy` takes from its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.deploy.command import pack, parse_extras
from edgewright.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, None), ("none", ()), ("serve", ("serve",)), ("openvino, serve", ("openvino", "serve"))],
)
def test_extras(text: str | None, names: tuple[str, ...] | None) -> None:
    assert parse_extras(text) == names


@pytest.mark.parametrize("text", ["torch", "serve;rm", "", "serve,", "none,serve", "Serve"])
def test_extras_that_are_not_for_a_device_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected some of openvino, serve"):
        parse_extras(text)


def test_wheels_for_a_device_without_internet(tmp_path: Path, tiny_opened: Bundle) -> None:
    for name in ("numpy-2.2.0-cp311-cp311-linux_aarch64.whl", "edgewright-0.0.1-py3-none-any.whl", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    # Of edgewright itself the wheel that is running goes, whatever lies there.
    parcel = pack(tiny_opened, None, tmp_path)
    assert parcel.wheelhouse == {
        "numpy-2.2.0-cp311-cp311-linux_aarch64.whl": tmp_path / "numpy-2.2.0-cp311-cp311-linux_aarch64.whl"
    }
    assert len(parcel.wheel[1]) > 100_000
    # Or the one that was asked for.
    other = pack(tiny_opened, tmp_path / "edgewright-0.0.1-py3-none-any.whl", None)
    assert other.wheel == ("edgewright-0.0.1-py3-none-any.whl", b"edgewright-0.0.1-py3-none-any.whl")
    assert other.wheelhouse == {}


def test_what_is_no_wheel_is_refused(tmp_path: Path, tiny_opened: Bundle) -> None:
    (tmp_path / "numpy-2.2.0.whl").touch()
    for wheel in (tmp_path / "absent.whl", tmp_path / "numpy-2.2.0.whl", tmp_path):
        with pytest.raises(UsageError, match="expected a file edgewright-VERSION"):
            pack(tiny_opened, wheel, None)
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "absent"):
        with pytest.raises(UsageError, match="no wheels there"):
            pack(tiny_opened, None, folder)
