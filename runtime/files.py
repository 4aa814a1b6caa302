"""Files that are either complete or not there: atomic writes, checksums, paths that cannot leave a folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgewright.runtime.errors import BundleError

__all__ = ["atomic_directory", "atomic_write", "resolve_inside", "sha256_of"]


def sha256_of(data: bytes) -> str:
    """Hex digest of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Text is encoded as UTF-8. The parent folder is created.
    """
    payload = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # A full disk is reported by the write, which does not know the file's name.
            error.filename = str(path)
        raise
    _fsync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes the place of `path` when the block ends well.

    An older folder at `path` stays until the new one is complete and synced to disk; on any exception it is left as
    it was. Two renames are needed (POSIX cannot exchange folders portably), so for an instant nothing is at `path`;
    if the process dies just there, the older folder is beside it under the name `.<name>.old-*`.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, RuntimeError, ValueError) as error:  # a file among the parents, a loop of links, a NUL
        raise BundleError(f"No folder can be made at '{path}': {error}.") from error
    if path.exists() and not path.is_dir():
        raise BundleError(f"'{path}' is a file. Expected a folder, or nothing, in its place.")
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        for folder, _, names in os.walk(temporary):
            for name in names:
                with Path(folder, name).open("rb") as stream:
                    os.fsync(stream.fileno())
            _fsync_directory(Path(folder))
        if path.exists():
            retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old-"))
            path.replace(retired)
            try:
                temporary.replace(path)
            except BaseException:
                retired.replace(path)
                raise
            shutil.rmtree(retired)
        else:
            temporary.replace(path)
        _fsync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def resolve_inside(root: Path, relative: str) -> Path:
    """The file `relative` (POSIX separators) inside the folder `root`.

    Raises:
        BundleError: the name is absolute, climbs out with `..`, or leads out through a symbolic link.
    """
    pure = PurePosixPath(relative)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative:
        raise BundleError(f"Refused the file name {relative!r}: expected a plain relative path inside {root}.")
    path = root.joinpath(*pure.parts)
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL, a lone surrogate
        raise BundleError(f"Refused the file name {relative!r}: {error}.") from error
    if not inside:
        raise BundleError(f"Refused {relative!r}: it leads outside {root} through a symbolic link.")
    return path
