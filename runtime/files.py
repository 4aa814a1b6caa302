"""Files that are either complete or not there: atomic writes, checksums, paths that cannot leave a folder.

What is being written is called `.<name>.new-<8 letters>`, beside the name that it will get, and is locked by the process that
writes it. One that is killed leaves it there; the next one that writes the same name removes what nobody has locked.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from edgewright.runtime.errors import BundleError

__all__ = [
    "atomic_directory",
    "atomic_file",
    "atomic_write",
    "require_writable",
    "resolve_inside",
    "sha256_of",
    "sha256_of_file",
    "temporary_folder",
]

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<state>new|old)-[a-z0-9_]{8}", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux's <fcntl.h> and <linux/fs.h>."""


def sha256_of(data: bytes) -> str:
    """Hex digest of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The same of a file of any size, which is not read at once."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Make `folder` if it is not there, and try whether a file can be made in it: before the work whose result it will hold.

    Raises:
        OSError: it cannot; names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)
        raise


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Text is encoded as UTF-8. The parent folder is created.
    """
    payload = data.encode() if isinstance(data, str) else data
    with atomic_file(path) as temporary:
        temporary.write_bytes(payload)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place, synced to disk, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        _remove_abandoned(path, _temporaries(path.parent))
        temporary, descriptor = _new_file(path)
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(temporary.unlink, missing_ok=True)
            with contextlib.ExitStack() as locked:
                locked.callback(os.close, descriptor)
                yield temporary
                os.fsync(descriptor)
                temporary.chmod(0o644)
                if os.name == "nt":  # where an open file cannot be renamed, and is not locked either
                    locked.close()
                temporary.replace(path)
        _fsync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes the place of `path` when the block ends well.

    An older folder at `path` stays until the new one is complete and synced to disk; on any exception it is left as it
    was. Linux exchanges the two at once. Elsewhere that takes two renames, and for an instant nothing is at `path`; if the
    process dies just there, the next one that writes to `path` puts the older folder back first.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, RuntimeError, ValueError) as error:  # a file among the parents, a loop of links, a NUL
        raise BundleError(f"No folder can be made at '{path}': {error}.") from error
    if path.exists() and not path.is_dir():
        raise BundleError(f"'{path}' is a file. Expected a folder, or nothing, in its place.")
    with _naming(path), temporary_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o755)
        for folder, _, names in os.walk(temporary):
            for name in names:
                with Path(folder, name).open("rb") as stream:
                    os.fsync(stream.fileno())
            _fsync_directory(Path(folder))
        if not path.exists():
            temporary.replace(path)
        elif not _exchange(temporary, path):
            _replace_in_two_steps(temporary, path)
        _fsync_directory(path.parent)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; whatever has its name after the block is removed.

    Before that, those that killed processes left are removed.
    """
    _temporaries.cache_clear()
    _remove_abandoned(path, _temporaries(path.parent))
    temporary, descriptor = _new_folder(path)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system name `path`: a full disk names no file, and a temporary one says nothing to people."""
    try:
        yield
    except OSError as error:
        name = os.fspath(error.filename) if isinstance(error.filename, (str, os.PathLike)) else ""
        if not name or name.startswith(f"{path.with_name(f'.{path.name}.')}"):
            error.filename, error.filename2 = str(path), None
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names at once; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # not in every libc
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _replace_in_two_steps(new: Path, path: Path) -> None:
    retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old-"))
    path.replace(retired)
    try:
        new.replace(path)
    except BaseException:
        retired.replace(path)
        raise
    shutil.rmtree(retired)


def _new_file(path: Path) -> tuple[Path, int]:
    """A temporary file beside `path`, and the descriptor that keeps it locked."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.new-")
        _lock(descriptor, wait=True)
        # Before it was locked it looked abandoned to others.
        if os.path.lexists(name):
            return Path(name), descriptor
        os.close(descriptor)


def _new_folder(path: Path) -> tuple[Path, int | None]:
    """A temporary folder beside `path`, and the descriptor that keeps it locked; Windows has none for folders."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except PermissionError:
            return folder, None
        _lock(descriptor, wait=True)
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Whether this process has the file or folder for itself, until the descriptor is closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another process has it, or the file system knows no locks
        return False
    return True


@functools.lru_cache(maxsize=16)
def _temporaries(folder: Path) -> tuple[Path, ...]:
    """Temporary files and folders in `folder`; looked for once, as some folders get thousands of files one by one."""
    with contextlib.suppress(OSError):
        return tuple(sorted(each for each in folder.iterdir() if _TEMPORARY.fullmatch(each.name)))
    return ()


def _remove_abandoned(path: Path, temporaries: Iterable[Path]) -> None:
    """Remove those of `path` that no process is writing; put an older folder back that was about to be replaced."""
    for left in temporaries:
        match = _TEMPORARY.fullmatch(left.name)
        if match is None or match["name"] != path.name:
            continue
        try:
            descriptor = os.open(left, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            continue
        try:
            if not _lock(descriptor):
                continue
            if match["state"] == "old" and not path.exists():
                left.replace(path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


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
