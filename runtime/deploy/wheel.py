"""A wheel of the edgewright that is running: what goes to a device is what was tried here, built without network or tools.

Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from edgewright.runtime.errors import DeployError

__all__ = ["build_wheel"]

_PACKAGE = "edgewright"
_ROOMS = ("benchmarks", "demo", "export", "runtime", "train")
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgewright\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_KEPT_METADATA = ("METADATA", "entry_points.txt", "top_level.txt")


def build_wheel() -> tuple[str, bytes]:
    """Name and content; the same code gives the same bytes.

    Raises:
        DeployError: this installation has no metadata to make a wheel of.
    """
    try:
        installed = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise DeployError(
            "edgewright is not installed here, only imported: there is no wheel to send. Install it, or give --wheel FILE."
        ) from None
    info = f"{_PACKAGE}-{installed.version}.dist-info"
    files = dict(_modules())
    for name in _KEPT_METADATA:
        if (text := installed.read_text(name)) is not None:
            files[f"{info}/{name}"] = text.encode()
    # An installation for development keeps it under another name.
    if f"{info}/METADATA" not in files and (text := installed.read_text("PKG-INFO")) is not None:
        files[f"{info}/METADATA"] = text.encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _OLDEST_DATE), data, zipfile.ZIP_DEFLATED)
    return f"{_PACKAGE}-{installed.version}-py3-none-any.whl", packed.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _modules() -> Iterator[tuple[str, bytes]]:
    """Every file of the package as it is imported here: in a checkout its rooms are folders beside each other."""
    for room in ("", *_ROOMS):
        found = importlib.util.find_spec(f"{_PACKAGE}.{room}" if room else _PACKAGE)
        assert found is not None
        assert found.origin is not None
        folder = Path(found.origin).parent
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if not path.is_file() or "__pycache__" in inside.parts or path.name.startswith("."):
                continue
            # Installed, the rooms lie inside the package and have their own turn.
            if not room and inside.parts[0] in _ROOMS:
                continue
            yield "/".join((_PACKAGE, *((room,) if room else ()), *inside.parts)), path.read_bytes()
