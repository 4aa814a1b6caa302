"""The wheel that goes to a device is the one that would be built from the repository."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from importlib import metadata

from edgewright.runtime.deploy.wheel import build_wheel
from edgewright.version import __version__


def test_same_code_gives_the_same_bytes() -> None:
    assert build_wheel() == build_wheel()


def test_record_is_right() -> None:
    name, data = build_wheel()
    assert name == f"edgewright-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = f"edgewright-{__version__}.dist-info"
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode()))}
        assert set(rows) == set(archive.namelist())
        for file in archive.namelist():
            if not file.endswith("RECORD"):
                content = archive.read(file)
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert rows[file] == [f"sha256={digest}", str(len(content))]


def test_metadata_is_that_of_the_installed_package() -> None:
    _, data = build_wheel()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        text = archive.read(f"edgewright-{__version__}.dist-info/METADATA").decode()
        points = archive.read(f"edgewright-{__version__}.dist-info/entry_points.txt").decode()
    assert text == metadata.distribution("edgewright").read_text("METADATA")
    assert "edgewright = edgewright.cli:main" in points
