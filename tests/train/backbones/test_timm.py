"""Backbones of timm: by name, cut at their stages, with weights from a file, a run or the hub's cache."""

from __future__ import annotations

import builtins
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgewright.runtime.errors import MissingExtraError, UsageError, WeightsError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone, require_backbone
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of, plan_stages, replace_head, split_at, stage_parameters
from edgewright.train.backbones.weights import load_pretrained, preprocess_for

timm = pytest.importorskip("timm", reason="needs the extra 'timm'")

SIZE = 64
CLASSES = 5
BACKBONE = "timm:mobilenetv3_small_050"
NETWORKS = (
    "timm:mobilenetv4_conv_small",
    "timm:efficientnet_lite0",
    "timm:resnet10t",
    "timm:ghostnet_100",
    "timm:repvgg_a0",
    BACKBONE,
)


def network_of(backbone: str) -> Network:
    torch.manual_seed(0)
    model = build_backbone(backbone)
    replace_head(model, CLASSES)
    return Network(model, Preprocess(resize=SIZE, crop=SIZE)).eval()


@pytest.mark.parametrize("backbone", NETWORKS)
def test_parts_compute_what_the_network_does(backbone: str) -> None:
    network = network_of(backbone)
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    assert len(plan.cuts) >= 4
    assert plan.shapes[-1] == (head_of(network)[1].in_features,)
    with torch.inference_mode():
        expected = network(images)
        for cut in plan.cuts:
            frozen, tail = split_at(plan, cut)
            assert torch.equal(tail(frozen(images)), expected), cut
    names = [name for stage in stage_parameters(network, plan) for name in stage]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


def test_batch_normalisation_of_a_tail_learns() -> None:
    network = network_of(BACKBONE)
    images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    frozen, tail = split_at(plan, plan.cuts[1])
    with torch.no_grad():
        activations = frozen(images)
        in_eval = tail(activations)
        before = {name: value.clone() for name, value in tail.named_buffers() if name.endswith("running_mean")}
        in_training = tail.train()(activations)
    assert before
    assert not torch.equal(in_training, in_eval)
    assert all(not torch.equal(dict(tail.named_buffers())[name], value) for name, value in before.items())


def test_network_that_cannot_be_traced_says_what_remains() -> None:
    with pytest.raises(UsageError, match=r"cannot be divided into stages: torch\.fx cannot trace it .* full, scratch"):
        plan_stages(network_of("timm:mobilevit_xxs"), torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8))


def test_network_with_two_heads_is_refused() -> None:
    with pytest.raises(UsageError, match="'timm:levit_128s' does not end in one linear layer"):
        build_backbone("timm:levit_128s")


# Names


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(
        UsageError, match=r"Unknown backbone 'timm:mobilnetv4_conv_smal'\. .*timm:mobilenetv4_conv_small"
    ):
        require_backbone("timm:mobilnetv4_conv_smal")


def test_unknown_tag_lists_the_tags_there_are() -> None:
    with pytest.raises(UsageError, match=r"Near names: .*timm:resnet18\.a1_in1k"):
        require_backbone("timm:resnet18.nope")


def test_name_with_a_tag_is_accepted() -> None:
    require_backbone("timm:resnet18.a1_in1k")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "timm":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    from edgewright.train.backbones import timm_source

    timm_source._known.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"edgewright\[timm\]"):
        require_backbone(BACKBONE)


def test_names_of_torchvision_do_not_import_timm() -> None:
    import subprocess

    code = (
        "import sys; from edgewright.train.backbones.weights import load_pretrained;"
        "load_pretrained('squeezenet1_1', 'none'); sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Preprocessing


def test_preprocessing_is_that_of_the_configuration() -> None:
    spec = preprocess_for("timm:resnet10t", "imagenet", None, False)
    assert (spec.resize, spec.crop, spec.interpolation) == (201, 176, "bicubic")


def test_statistics_are_those_of_the_configuration() -> None:
    spec = preprocess_for("timm:efficientnet_lite0", "none", None, False)
    tf = preprocess_for("timm:tf_efficientnet_lite0", "none", None, False)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert (tf.mean, tf.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


# Weights


def same(found: nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    state = found.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_file_is_loaded(tmp_path: Path, suffix: str) -> None:
    state = build_backbone(BACKBONE, 7).state_dict()
    path = tmp_path / f"weights.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    pretrained = load_pretrained(BACKBONE, str(path))
    assert same(pretrained.model, state)
    assert pretrained.classes == ()


def test_no_weights() -> None:
    assert load_pretrained(BACKBONE, "none").source == "random initialisation"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's cache, empty, on a machine without a network."""
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("this test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub: Path) -> Path:
    """Where the hub keeps BACKBONE's weights."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = hub / "models--timm--mobilenetv3_small_050.lamb_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit / "model.safetensors"


def test_no_network_tells_what_to_do_instead(hub: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(BACKBONE, "imagenet")
    for advice in ("this test has no network", "--weights PATH", "huggingface.co/timm/mobilenetv3_small_050.lamb_in1k"):
        assert advice in str(caught.value)


def test_file_in_the_cache_is_loaded_with_names_and_licence(hub: Path) -> None:
    state = build_backbone(BACKBONE).state_dict()
    save_file(state, cached(hub))
    pretrained = load_pretrained(BACKBONE, "imagenet")
    assert same(pretrained.model, state)
    assert pretrained.classes[:2] == ("tench", "goldfish")
    assert pretrained.source == "timm timm/mobilenetv3_small_050.lamb_in1k"
    assert pretrained.licence == "apache-2.0"


def test_cached_weights_of_another_model_are_refused(hub: Path) -> None:
    save_file(build_backbone("timm:resnet10t").state_dict(), cached(hub))
    with pytest.raises(WeightsError, match=f"do not fit this timm's '{BACKBONE}'"):
        load_pretrained(BACKBONE, "imagenet")


def test_damaged_file_in_the_cache_is_refused(hub: Path) -> None:
    cached(hub).write_bytes(b"<html>captive portal</html>")
    with pytest.raises(WeightsError, match=r"Cannot read weights from '.*model\.safetensors'"):
        load_pretrained(BACKBONE, "imagenet")


def test_model_without_published_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="timm has no weights for 'timm:nf_regnet_b0'"):
        load_pretrained("timm:nf_regnet_b0", "imagenet")
