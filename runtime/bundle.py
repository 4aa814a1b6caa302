"""Bundles on disk: opened only when every byte is what the manifest says, written all at once or not at all."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.runtime.errors import BundleError
from edgewright.runtime.files import atomic_directory, require_writable, resolve_inside, sha256_of
from edgewright.runtime.manifest import Artefact, FileRecord, Manifest, parse_manifest

__all__ = ["LABELS_FILE", "MANIFEST_FILE", "Bundle", "open_bundle", "record_files", "require_free", "writing_bundle"]

MANIFEST_FILE = "manifest.json"
LABELS_FILE = "labels.txt"

_LARGEST_MANIFEST = 16 * 1024 * 1024
_LARGEST_FILE = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest."""

    path: Path
    manifest: Manifest

    def read(self, relative: str) -> bytes:
        """The bytes of one file, checked against the manifest at this moment.

        What is checked is what is returned, so a file that is exchanged after the bundle was opened is not used.

        Raises:
            BundleError: the manifest does not list the file, or the file is missing, linked away, or altered.
        """
        record = self.manifest.files.get(relative)
        if record is None:
            raise BundleError(f"'{relative}' is not listed in the manifest of '{self.path}'.")
        return _read_checked(self.path, relative, record)

    def artefact_bytes(self, artefact: Artefact) -> tuple[bytes, bytes | None]:
        """The artefact's model file, and its weights file if it has one."""
        weights = None if artefact.weights_file is None else self.read(artefact.weights_file)
        return self.read(artefact.file), weights


def _read_checked(root: Path, relative: str, record: FileRecord) -> bytes:
    path = resolve_inside(root, relative)
    try:
        found_there = path.stat()
        if not stat.S_ISREG(found_there.st_mode):
            # Nobody may ever write into a pipe.
            raise BundleError(f"'{relative}' in '{root}' is no plain file. Export or copy the bundle again.")
        size = found_there.st_size
        if size != record.size_bytes or size > _LARGEST_FILE:
            raise BundleError(
                f"'{relative}' in '{root}' has {size:,} bytes, expected {record.size_bytes:,}. "
                "The bundle is incomplete or was altered; export or copy it again."
            )
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"'{relative}' is missing from '{root}' or cannot be read ({error.strerror or error}). "
            "The bundle is incomplete; export or copy it again."
        ) from error
    found = sha256_of(data)
    if found != record.sha256:
        raise BundleError(
            f"'{relative}' in '{root}' was altered: its SHA-256 is {found[:16]}…, the manifest says "
            f"{record.sha256[:16]}…. Export or copy the bundle again."
        )
    return data


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle and check every file in it.

    Raises:
        BundleError: no bundle there, half-written, altered, files outside the folder or unlisted ones inside, or made
            by a newer version.
    """
    root = Path(path)
    try:
        is_folder = root.is_dir()
    except OSError as error:  # a name longer than the system allows
        raise BundleError(f"No bundle at '{root}': {error.strerror}.") from error
    manifest_path = resolve_inside(root, MANIFEST_FILE)
    if not is_folder or not manifest_path.is_file():
        found = (
            "no folder" if not root.exists() else "a file" if root.is_file() else f"a folder without {MANIFEST_FILE}"
        )
        raise BundleError(f"No bundle at '{root}': found {found}. Expected a folder that `edgewright export` wrote.")
    if manifest_path.stat().st_size > _LARGEST_MANIFEST:
        raise BundleError(f"'{manifest_path}' is larger than {_LARGEST_MANIFEST:,} bytes. It is no manifest of ours.")
    manifest = parse_manifest(manifest_path.read_bytes(), str(manifest_path))
    for relative, record in manifest.files.items():
        data = _read_checked(root, relative, record)
        if relative == LABELS_FILE and data.decode("utf-8", "replace").split("\n") != [*manifest.labels, ""]:
            raise BundleError(
                f"'{LABELS_FILE}' in '{root}' differs from the manifest's labels. Export the bundle again."
            )
    if LABELS_FILE not in manifest.files:
        raise BundleError(f"'{root}' has no {LABELS_FILE}. Export the bundle again.")
    present = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_symlink() or not file.is_dir()}
    if strangers := sorted(present - set(manifest.files) - {MANIFEST_FILE}):
        raise BundleError(
            f"'{root}' holds '{strangers[0]}', which its manifest does not list. Remove it or export again."
        )
    return Bundle(root, manifest)


def record_files(root: Path) -> dict[str, FileRecord]:
    """Size and checksum of every file below `root` but the manifest, by POSIX name."""
    records = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = path.relative_to(root).as_posix()
        if relative != MANIFEST_FILE:
            data = path.read_bytes()
            records[relative] = FileRecord(sha256=sha256_of(data), size_bytes=len(data))
    return records


def _is_ours(path: Path) -> bool:
    """Whether a bundle, of any version and in any state, is at `path`; other software calls files manifest.json too."""
    manifest = path / MANIFEST_FILE
    if not manifest.is_file() or manifest.stat().st_size > _LARGEST_MANIFEST:
        return False
    try:
        document = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"schema_version", "labels", "artefacts"} <= set(document)


def require_free(path: Path) -> None:
    """Find out whether a bundle could be written to `path`: before the work whose result it will hold.

    Raises:
        BundleError: something that is not a bundle is there.
        OSError: nothing can be written beside it.
    """
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not is_free and not _is_ours(path):
        raise BundleError(f"'{path}' exists and is no bundle; it is not overwritten. Choose another --out.")
    try:
        require_writable(path.resolve().parent)
    except (FileExistsError, RuntimeError, ValueError) as error:  # as atomic_directory
        raise BundleError(f"No folder can be made at '{path}': {error}.") from error


@contextlib.contextmanager
def writing_bundle(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes the bundle at `path` if the block ends well and the result opens.

    Raises:
        BundleError: something that is not a bundle is at `path`, or what was written does not open.
    """
    require_free(path)
    with atomic_directory(path) as folder:
        yield folder
        open_bundle(folder)
