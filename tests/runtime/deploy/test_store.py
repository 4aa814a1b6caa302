"""Releases on the device, without a device: the same functions on a folder of this machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from edgewright.runtime.deploy.on_device.store import place, prepare, receive, state, switch, tidy
from edgewright.runtime.errors import DeployError


class Root:
    """A folder as `deploy` makes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "environments" / "env").mkdir(parents=True)
        (root / "environments" / "env" / "ready.json").write_text("{}")

    def request(self, release: str, **words: Any) -> dict[str, Any]:
        return {"root": str(self.root), "name": "model", "release": release, "environment": "env", **words}

    def release(self, name: str) -> dict[str, Any]:
        """A release whose one file has its name as content, copied and laid out."""
        data = name.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        request = self.request(name, files={sha256: len(data)}, missing=[sha256], received=[sha256])
        prepare(request)
        (self.root / "incoming" / sha256).write_bytes(data)
        assert receive(request) == {"wrong": []}
        request |= {"bundle": {"manifest.json": sha256}, "manifest": sha256}
        place(request)
        return request

    def current(self) -> str:
        return (self.root / "current" / "model" / "bundle" / "manifest.json").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def test_the_release_before_is_kept_and_older_ones_go(root: Root) -> None:
    before = None
    for name in ("one", "two", "three"):
        request = root.release(name)
        assert switch(request) == {"before": before}
        tidy(request | {"before": before})
        assert root.current() == name
        before = name
    assert {path.name for path in (root.root / "releases" / "model").iterdir()} == {"two", "three"}
    kept = {path.read_text() for path in (root.root / "files").iterdir()}
    assert kept == {"two", "three"}


def test_the_slower_of_two_deployments_removes_not_what_the_faster_one_switched_to(root: Root) -> None:
    older, slow, fast = (root.release(name) for name in ("older", "slow", "fast"))
    switch(older)
    before = switch(slow)
    switch(fast)
    tidy(slow | before)
    assert root.current() == "fast"


def test_release_that_another_deployment_removed_is_not_switched_to(root: Root) -> None:
    first, second = root.release("first"), root.release("second")
    switch(first)
    tidy(first | {"before": None})
    with pytest.raises(DeployError, match="another deployment has removed it"):
        switch(second)
    assert root.current() == "first"


def test_what_is_there_is_looked_at(root: Root) -> None:
    request = root.release("one")
    found = state(request)
    assert (found["missing"], found["placed"], found["current"]) == ([], True, False)
    switch(request)
    assert state(request)["current"]
    # Altered, with the size and the date as they were.
    kept = next((root.root / "files").iterdir())
    times = kept.stat().st_atime_ns, kept.stat().st_mtime_ns
    kept.chmod(0o644)
    kept.write_bytes(b"eno")
    os.utime(kept, ns=times)
    found = state(request)
    assert (len(found["missing"]), found["placed"]) == (1, False)


def test_part_that_has_come_whole_is_kept_and_a_wrong_one_is_asked_for_again(root: Root) -> None:
    data = b"a file"
    sha256 = hashlib.sha256(data).hexdigest()
    request = root.request("one", files={sha256: len(data)}, missing=[sha256], received=[sha256])
    assert prepare(request) == {"missing": [sha256], "parts": []}
    part = root.root / "incoming" / sha256
    part.write_bytes(data[:3])
    assert prepare(request) == {"missing": [sha256], "parts": [sha256]}
    part.write_bytes(b"a lie!")
    assert receive(request) == {"wrong": [sha256]}
    part.write_bytes(data)
    assert prepare(request) == {"missing": [], "parts": []}
    assert (root.root / "files" / sha256).read_bytes() == data
    (root.root / "incoming" / "nobody").write_bytes(b"")
    prepare(request)
    assert list((root.root / "incoming").iterdir()) == []
