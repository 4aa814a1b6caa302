"""Datasets by name: torchvision's files become a folder of pictures, once and completely."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgewright.runtime.errors import DataError
from edgewright.runtime.images import read_image
from edgewright.train.data import NAMES, read_data
from edgewright.train.data.named import default_data_root, write_pictures

PER_CLASS = {"train": 6, "t10k": 2}


def pixels_of(prefix: str) -> npt.NDArray[np.uint8]:
    """PER_CLASS pictures of each of ten classes, all different."""
    count = 10 * PER_CLASS[prefix]
    return np.random.default_rng(len(prefix)).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def write_idx(folder: Path, *, labels_short_by: int = 0) -> None:
    """Both splits in the format of Y. LeCun's files: magic number, big endian sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in PER_CLASS:
        pixels = pixels_of(prefix)
        head = b"\x00\x00\x08\x03" + np.array(pixels.shape, dtype=">i4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        short = labels_short_by if prefix == "t10k" else 0
        labels = np.arange(len(pixels) - short, dtype=np.uint8) % 10
        head = b"\x00\x00\x08\x01" + np.array(labels.shape, dtype=">i4").tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    write_idx(tmp_path / "MNIST" / "raw")
    return tmp_path


def test_pictures_keep_their_pixels_labels_and_split(mnist: Path) -> None:
    data = read_data("mnist", seed=0, data_root=mnist)
    pixels = pixels_of("t10k")
    assert len(data.splits["test"]) == len(pixels)
    for sample in data.splits["test"]:
        index = int(Path(sample.name).stem)
        assert np.array_equal(np.asarray(read_image(sample.source))[:, :, 0], pixels[index])
        assert data.classes[sample.label] == str(index % 10)


def test_validation_is_split_off_from_training(mnist: Path) -> None:
    data = read_data("mnist", seed=0, data_root=mnist, val_fraction=1 / 3)
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [40, 20, 20]


def test_mirrored_digits_are_no_digits_and_fill_the_picture(mnist: Path) -> None:
    data = read_data("mnist", seed=0, data_root=mnist)
    assert (data.mirrored, data.resize_to_crop) == (False, True)


def test_origin_is_the_folder_with_the_pictures(mnist: Path) -> None:
    data = read_data("mnist", seed=0, data_root=mnist)
    assert data.origin == str(mnist / "mnist-images")
    assert all((mnist / "mnist-images" / sample.name).is_file() for sample in data.splits["train"])


def test_folder_of_pictures_is_enough_the_next_time(mnist: Path) -> None:
    first = read_data("mnist", seed=0, data_root=mnist)
    for file in (mnist / "MNIST" / "raw").iterdir():
        file.unlink()
    assert read_data("mnist", seed=0, data_root=mnist) == first


def test_fashion_has_its_own_names_and_may_be_mirrored(tmp_path: Path) -> None:
    write_idx(tmp_path / "FashionMNIST" / "raw")
    data = read_data("fashion_mnist", seed=0, data_root=tmp_path)
    assert {"T-shirt-top", "Trouser", "Ankle boot"} < set(data.classes)
    assert (len(data.classes), data.mirrored, data.resize_to_crop) == (10, True, True)
    assert {data.classes[one.label] for one in data.splits["test"] if int(Path(one.name).stem) % 10 == 0} == {
        "T-shirt-top"
    }


def test_damage_in_the_second_split_leaves_nothing_behind(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", labels_short_by=1)
    with pytest.raises(DataError, match="damaged: 20 test pictures with 19 labels from 0 to 9"):
        read_data("mnist", seed=0, data_root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


@pytest.mark.usefixtures("no_network")
def test_truncated_file_is_refused(mnist: Path) -> None:
    file = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"mnist.*Expected train-images-idx3-ubyte\.gz"):
        read_data("mnist", seed=0, data_root=mnist)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", r"t10k-labels-idx1-ubyte\.gz in '{root}/MNIST/raw'"),
        ("fashion_mnist", r"t10k-labels-idx1-ubyte\.gz in '{root}/FashionMNIST/raw'"),
        ("cifar10", r"cifar-10-python\.tar\.gz in '{root}'"),
        ("cifar100", r"cifar-100-python\.tar\.gz in '{root}'"),
    ],
)
def test_failed_download_says_which_files_belong_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str
) -> None:
    with pytest.raises(DataError, match=f"{name} can neither .*{expected.format(root=tmp_path)}.*--data-root"):
        read_data(name, seed=0, data_root=tmp_path)
    assert not (tmp_path / f"{name}-images").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("no_network")
def test_foreign_archive_is_not_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="mnist can neither be read"):
        read_data("mnist", seed=0, data_root=tmp_path)
    assert not (folder / "train-images-idx3-ubyte").exists()


class InMemory:
    """What torchvision's CIFAR-10 looks like from outside."""

    classes = ("airplane", "T-shirt/top")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), index % 2


def test_pictures_in_colour_are_written_without_loss(tmp_path: Path) -> None:
    write_pictures(InMemory(), tmp_path / "train", "converting")
    written = {path.relative_to(tmp_path / "train").as_posix(): path for path in tmp_path.rglob("*.png")}
    assert sorted(written) == [
        *("T-shirt-top/00001.png", "T-shirt-top/00003.png"),
        *("airplane/00000.png", "airplane/00002.png", "airplane/00004.png"),
    ]
    for path in written.values():
        assert np.array_equal(np.asarray(read_image(path)), InMemory.pixels[int(path.stem)])


def test_class_without_pictures_keeps_its_folder(tmp_path: Path) -> None:
    class Empty(InMemory):
        classes = ("airplane", "ship", "frog")

    write_pictures(Empty(), tmp_path / "train", "converting")
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["airplane", "frog", "ship"]


def test_data_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"No folder for datasets at .*--data-root"):
        read_data("mnist", seed=0, data_root=tmp_path / "file")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def test_datasets_are_kept_in_the_users_cache(cache: Path) -> None:
    assert default_data_root() == cache / "home" / ".cache" / "edgewright" / "datasets"


def test_cache_may_be_elsewhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "big disk"))
    assert default_data_root() == cache / "big disk" / "edgewright" / "datasets"


def test_relative_cache_is_ignored(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert default_data_root().is_absolute()


@pytest.mark.parametrize(
    ("typed", "meant"), [("fashion-mnist", "fashion_mnist"), ("cifar", "cifar"), ("digit", "digits")]
)
def test_unknown_name_is_answered_with_a_near_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"one of: digits, {', '.join(NAMES)}\. Did you mean '{meant}"):
        read_data(typed, seed=0)


def test_mistyped_folder_is_answered_with_the_one_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clothing").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="Did you mean 'clothing'"):
        read_data("clothng", seed=0)
