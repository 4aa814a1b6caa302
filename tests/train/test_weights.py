"""Weights come from a file, a run, the package or torchvision's cache; whatever does not fit is refused by name."""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgewright.runtime.errors import UsageError, WeightsError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import backbone_names, build_backbone, imagenet_weights
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.backbones.weights import BUILTIN_BACKBONE, load_pretrained, preprocess_for
from edgewright.train.run import RunRecord

BACKBONE = "shufflenet_v2_x0_5"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """A state dict for BACKBONE with ImageNet's thousand classes."""
    torch.manual_seed(1)
    return build_backbone(BACKBONE).state_dict()


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's folder of downloads, empty, on a machine without a network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("this test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    folder = tmp_path / "torch home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def cached_file(cache: Path) -> Path:
    """Where torchvision keeps BACKBONE's weights; their hash is checked after the download, not when they are found."""
    return cache / str(imagenet_weights(BACKBONE).url).rsplit("/", 1)[-1]


def same(found: nn.Module, expected: State) -> bool:
    state = found.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)


class Payload:
    """A pickled object that leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


class Served(io.BytesIO):
    """What urlopen returns: a body, and headers that do not tell its length."""

    def info(self) -> Message:
        return Message()


# Files


def test_pth_round_trip(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "weights.pth")
    assert same(load_pretrained(BACKBONE, str(tmp_path / "weights.pth")).model, state)


def test_safetensors_round_trip(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    assert same(load_pretrained(BACKBONE, str(tmp_path / "weights.safetensors")).model, state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
    ids=["state_dict", "model", "DataParallel"],
)
def test_usual_wrappings_of_a_state_dict_are_taken_off(
    tmp_path: Path, state: State, wrap: Callable[[State], dict[str, Any]]
) -> None:
    torch.save(wrap(state), tmp_path / "weights.pth")
    assert same(load_pretrained(BACKBONE, str(tmp_path / "weights.pth")).model, state)


def test_half_precision_weights_become_float32(tmp_path: Path, state: State) -> None:
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, tmp_path / "w.pth"
    )
    model = load_pretrained(BACKBONE, str(tmp_path / "w.pth")).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_thousand_outputs_are_imagenets_categories(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "weights.pth")
    assert load_pretrained(BACKBONE, str(tmp_path / "weights.pth")).classes[:2] == ("tench", "goldfish")


@pytest.mark.parametrize("backbone", [BACKBONE, "squeezenet1_1"])
def test_file_decides_how_many_outputs_there_are(tmp_path: Path, backbone: str) -> None:
    other = build_backbone(backbone, classes=7).state_dict()
    torch.save(other, tmp_path / "weights.pth")
    pretrained = load_pretrained(backbone, str(tmp_path / "weights.pth"))
    assert same(pretrained.model, other)
    assert pretrained.classes == ()


def test_source_names_the_file(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "mine.pth")
    assert load_pretrained(BACKBONE, str(tmp_path / "mine.pth")).source == "file mine.pth"


def test_file_from_before_batchnorm_counted_batches_is_accepted(tmp_path: Path, state: State) -> None:
    torch.save({key: value for key, value in state.items() if "num_batches_tracked" not in key}, tmp_path / "old.pth")
    load_pretrained(BACKBONE, str(tmp_path / "old.pth"))


# Files that do not fit


def test_weights_of_another_architecture_are_refused(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"do not fit SqueezeNet: .* missing, .* Check that --backbone"):
        load_pretrained("squeezenet1_1", str(tmp_path / "weights.pth"))


def test_parameter_of_another_shape_is_named(tmp_path: Path, state: State) -> None:
    torch.save(state | {"conv1.0.weight": torch.zeros(1, 2, 3, 4)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"'conv1\.0\.weight' has shape \(1, 2, 3, 4\), expected \(24, 3, 3, 3\)"):
        load_pretrained(BACKBONE, str(tmp_path / "weights.pth"))


def test_missing_parameter_is_named(tmp_path: Path, state: State) -> None:
    torch.save({key: value for key, value in state.items() if key != "conv1.0.weight"}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"1 parameters missing.*it lacks 'conv1\.0\.weight'"):
        load_pretrained(BACKBONE, str(tmp_path / "weights.pth"))


def test_unexpected_parameter_is_named(tmp_path: Path, state: State) -> None:
    torch.save(state | {"surprise": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"1 unexpected.*'surprise'"):
        load_pretrained(BACKBONE, str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"<html>404</html>", b"PK\x03\x04 half a zip", b"\x00" * 64])
def test_garbage_is_refused_by_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"broken{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"Cannot read weights from '.*broken{suffix}'"):
        load_pretrained(BACKBONE, str(tmp_path / f"broken{suffix}"))


@pytest.mark.parametrize("content", [b"G\x9b\x90", b"\x86"], ids=["struct.error", "IndexError"])
def test_garbage_that_trips_the_unpickler_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.pth' \(.*\): it is damaged, or holds more than tensors"):
        load_pretrained(BACKBONE, str(tmp_path / "broken.pth"))


def test_truncated_file_is_refused(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="Cannot read weights"):
        load_pretrained(BACKBONE, str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"epoch": 3}, torch.zeros(3)], ids=["list", "empty", "numbers", "tensor"]
)
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_pretrained(BACKBONE, str(tmp_path / "weights.pth"))


def test_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    message = (
        r"model\.pth' \(UnpicklingError\): it is damaged, or holds more than tensors\. Expected a state dict saved"
    )
    with pytest.raises(WeightsError, match=message):
        load_pretrained(BACKBONE, str(tmp_path / "model.pth"))


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))])
def test_code_in_a_file_is_not_run(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    save({"weight": Payload(tmp_path / "trace")}, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="it is damaged, or holds more than tensors"):
        load_pretrained(BACKBONE, str(tmp_path / "model.pth"))
    assert not (tmp_path / "trace").exists()


def test_refusal_does_not_advise_to_run_what_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError) as caught:
        load_pretrained(BACKBONE, str(tmp_path / "broken.pth"))
    assert "weights_only" not in str(caught.value)


def test_missing_file_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"No weights at '.*nowhere\.pth'. Expected imagenet, builtin, none, a \.pth"
    ):
        load_pretrained(BACKBONE, str(tmp_path / "nowhere.pth"))


# Names


def test_unknown_backbone_lists_near_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown backbone 'mobilnet_v2'\. Near names: mobilenet_v2, "):
        load_pretrained("mobilnet_v2", "none")


def test_name_near_to_nothing_still_lists_some() -> None:
    with pytest.raises(UsageError, match="Near names: mobilenet_v2, mobilenet_v3_small, resnet18"):
        load_pretrained("zzzz", "none")


def test_no_weights_are_random_and_mean_nothing() -> None:
    pretrained = load_pretrained(BACKBONE, "none")
    assert (pretrained.classes, pretrained.source) == ((), "random initialisation")


def test_catalogue_holds_classifiers_only() -> None:
    names = backbone_names()
    assert {"mobilenet_v2", "mobilenet_v3_small", "resnet18"} <= set(names)
    assert not [name for name in names if "rcnn" in name or "deeplab" in name or "raft" in name]


# Weights of torchvision


def test_no_network_tells_what_to_do_instead(torch_cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(BACKBONE, "imagenet")
    file = cached_file(torch_cache)
    for advice in ("this test has no network", "--weights builtin", "--weights PATH", file.name, str(file.parent)):
        assert advice in str(caught.value)


def test_failed_download_leaves_nothing_in_the_cache(torch_cache: Path) -> None:
    with pytest.raises(WeightsError):
        load_pretrained(BACKBONE, "imagenet")
    assert list(torch_cache.iterdir()) == []


def test_download_is_checked_against_the_hash_in_its_name(
    torch_cache: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "served.pth")
    monkeypatch.setattr(torch.hub, "urlopen", lambda _: Served((tmp_path / "served.pth").read_bytes()))
    digits = cached_file(torch_cache).stem.rpartition("-")[2]
    with pytest.raises(WeightsError, match=rf'Cannot download .*invalid hash value \(expected "{digits}"'):
        load_pretrained(BACKBONE, "imagenet")
    assert list(torch_cache.iterdir()) == []


def test_file_put_into_the_cache_is_loaded(torch_cache: Path, state: State) -> None:
    torch.save(state, cached_file(torch_cache))
    assert same(load_pretrained(BACKBONE, "imagenet").model, state)


def test_weights_of_torchvision_bring_names_and_source(torch_cache: Path, state: State) -> None:
    torch.save(state, cached_file(torch_cache))
    pretrained = load_pretrained(BACKBONE, "imagenet")
    assert pretrained.classes[:2] == ("tench", "goldfish")
    assert pretrained.source == "torchvision ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"


def test_truncated_file_in_the_cache_is_refused(torch_cache: Path, state: State) -> None:
    torch.save(state, cached_file(torch_cache))
    cached_file(torch_cache).write_bytes(cached_file(torch_cache).read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=cached_file(torch_cache).name):
        load_pretrained(BACKBONE, "imagenet")


@pytest.mark.parametrize("content", [b"", b"<html>captive portal</html>"])
def test_garbage_in_the_cache_is_refused(torch_cache: Path, content: bytes) -> None:
    cached_file(torch_cache).write_bytes(content)
    with pytest.raises(WeightsError, match=cached_file(torch_cache).name):
        load_pretrained(BACKBONE, "imagenet")


def test_code_in_the_cache_is_not_run(torch_cache: Path, tmp_path: Path) -> None:
    torch.save({"weight": Payload(tmp_path / "trace")}, cached_file(torch_cache))
    with pytest.raises(WeightsError, match="it is damaged, or holds more than tensors"):
        load_pretrained(BACKBONE, "imagenet")
    assert not (tmp_path / "trace").exists()


# Weights of the package


def test_builtin_weights_are_for_one_backbone() -> None:
    with pytest.raises(
        UsageError, match=f"for '{BUILTIN_BACKBONE}', not for 'resnet18'. Use --backbone {BUILTIN_BACKBONE}"
    ):
        load_pretrained("resnet18", "builtin")


# Weights of an earlier run


def write_run(folder: Path, backbone: str = BACKBONE) -> State:
    """What later runs read of a run folder, as `edgewright train` writes it."""
    model = build_backbone(backbone)
    replace_head(model, 2)
    record = RunRecord(
        name=folder.name,
        edgewright="0.0.0",
        torch=torch.__version__,
        backbone=backbone,
        classes=("cat", "dog"),
        preprocess=Preprocess(resize=96, crop=80),
        strategy="head",
        note="",
        weights="random initialisation",
        weights_licence="CC0-1.0",
        data="pets",
        counts={split: {"cat": 3, "dog": 2} for split in ("train", "val", "test")},
        mirrored=True,
        resize_to_crop=False,
        seed=0,
        best_epoch=None,
        val_top1=0.5,
        test_top1=None,
        seconds=1.0,
        finished_at="2026-01-01T00:00:00+00:00",
    )
    folder.mkdir()
    (folder / "run.json").write_text(record.model_dump_json())
    save_file(model.state_dict(), folder / "best.safetensors")
    return model.state_dict()


def test_run_folder_gives_its_model_and_classes(tmp_path: Path) -> None:
    expected = write_run(tmp_path / "pets")
    pretrained = load_pretrained(BACKBONE, str(tmp_path / "pets"))
    assert same(pretrained.model, expected)
    assert (pretrained.classes, pretrained.source) == (("cat", "dog"), "run pets")
    assert pretrained.licence == "CC0-1.0"


def test_run_of_another_backbone_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "pets")
    with pytest.raises(WeightsError, match=f"holds a '{BACKBONE}'. Expected 'resnet18': set --backbone"):
        load_pretrained("resnet18", str(tmp_path / "pets"))


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=rf"No finished run at '.*{tmp_path.name}'\. Expected a folder with run\.json"
    ):
        load_pretrained(BACKBONE, str(tmp_path))


def test_run_without_weights_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "pets")
    (tmp_path / "pets" / "best.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"No finished run at '.*pets'\. Expected .*best\.safetensors"):
        load_pretrained(BACKBONE, str(tmp_path / "pets"))


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_damaged_record_of_a_run_is_refused(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "pets")
    (tmp_path / "pets" / "run.json").write_text(text)
    with pytest.raises(WeightsError, match=r"pets/run\.json' cannot be read: .*\. Train again"):
        load_pretrained(BACKBONE, str(tmp_path / "pets"))


# Preprocessing


@pytest.mark.parametrize(
    ("backbone", "resize", "crop", "interpolation"),
    [
        ("resnet18", 256, 224, "bilinear"),
        ("efficientnet_b0", 256, 224, "bicubic"),
        ("inception_v3", 342, 299, "bilinear"),
    ],
)
def test_preprocessing_is_that_of_the_weights(backbone: str, resize: int, crop: int, interpolation: str) -> None:
    spec = preprocess_for(backbone, "imagenet", None, False)
    assert (spec.resize, spec.crop, spec.interpolation) == (resize, crop, interpolation)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50"])
def test_preprocessing_is_that_of_the_weights_that_are_downloaded(backbone: str) -> None:
    assert (
        preprocess_for(backbone, "imagenet", None, False).resize
        == imagenet_weights(backbone).transforms().resize_size[0]
    )


def test_other_image_size_keeps_the_margin() -> None:
    spec = preprocess_for("resnet18", "imagenet", 112, False)
    assert (spec.resize, spec.crop) == (128, 112)


def test_no_margin_is_left_where_the_subject_fills_the_picture() -> None:
    spec = preprocess_for("resnet18", "imagenet", 64, True)
    assert (spec.resize, spec.crop) == (64, 64)


def test_preprocessing_of_a_run_is_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "pets")
    assert preprocess_for(BACKBONE, str(tmp_path / "pets"), None, False) == Preprocess(resize=96, crop=80)


# Real weights


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "squeezenet1_0"])
def test_published_files_load(shared: Path, backbone: str) -> None:
    path = shared / "weights" / f"{backbone}-imagenet.pth"
    if not path.is_file():
        pytest.skip(f"needs '{path}', which this machine does not have")
    pretrained = load_pretrained(backbone, str(path))
    assert len(pretrained.classes) == 1000
