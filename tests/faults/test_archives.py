"""Archives with hostile names. Only the demo reads ZIP files, in memory; datasets are unpacked only if their sum is known."""

from __future__ import annotations

import io
import socket
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgewright.demo.compare import pictures_in_upload
from edgewright.runtime.errors import DataError, UsageError
from edgewright.train.data.named import read_named

HOSTILE = (
    *("../outside.png", "../../../../../../outside.png", "/outside.png", "//host/outside.png", "C:\\outside.png"),
    *("..\\outside.png", "C:outside.png", "a/../../outside.png", "./../outside.png", "~/outside.png", "...png"),
    *("a\nb.png", "\x1b[2Jb.png", "<img src=x onerror=alert(1)>.png", "$(reboot).png", "con.png", "x" * 5000 + ".png"),
)


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_names_in_a_zip_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Any) -> None:
    faults.tried("hostile name in a ZIP", "demo", len(HOSTILE))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        for name in HOSTILE:
            archive.writestr(zipfile.ZipInfo(name), b"pixels")
    before = everything_in(tmp_path)
    found = list(pictures_in_upload([str(tmp_path / "upload.zip")]))
    assert 0 < len(found) <= len(HOSTILE)
    assert not any("/" in name or "\\" in name or name in (".", "..") for name, _ in found)
    with faults.whole():
        assert everything_in(tmp_path) == before
        assert not Path("/outside.png").exists()


def test_link_in_a_zip_is_not_followed(tmp_path: Path, faults: Any) -> None:
    faults.tried("hostile name in a ZIP", "demo")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr(link, str(secret))
    ((_, data),) = pictures_in_upload([str(tmp_path / "upload.zip")])
    assert data == str(secret).encode(), "the name itself, which is no picture"


def test_zip_with_a_name_that_is_no_text_is_one_error_or_none(tmp_path: Path, faults: Any) -> None:
    faults.tried("hostile name in a ZIP", "demo")
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("aaaa.png", b"pixels")
    # Both in front of the data and in the list at the end; the second says that it is UTF-8.
    data = bytearray((tmp_path / "upload.zip").read_bytes().replace(b"aaaa.png", b"\xff\xfe\0\xc3.png"))
    directory = data.index(b"PK\1\2")
    data[directory + 9] |= 0x08
    (tmp_path / "upload.zip").write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        list(pictures_in_upload([str(tmp_path / "upload.zip")]))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tar_with_hostile_names_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, faults: Any
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the network is not needed here")

    faults.tried("hostile name in a tar", "train --data-root", 5)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    root = tmp_path / "data" / "root"
    root.mkdir(parents=True)
    with tarfile.open(root / f"{name.replace('cifar', 'cifar-')}-python.tar.gz", "w:gz") as archive:
        for member in ("../outside", "/outside", "cifar-10-batches-py/../../../outside", "device"):
            info = tarfile.TarInfo(member)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    before = everything_in(tmp_path)
    with pytest.raises(DataError, match=f"{name} can neither be read"):
        read_named(name, data_root=root, seed=0, val_fraction=0.1, test_fraction=0.1)
    with faults.whole():
        assert [path for path in everything_in(tmp_path) if path not in before] == []
        assert not Path("/outside").exists()
