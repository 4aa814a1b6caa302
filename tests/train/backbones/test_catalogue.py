"""The catalogue's figures are the libraries' own, or agree with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from edgewright.runtime.errors import UsageError
from edgewright.train.backbones.catalogue import build_backbone, build_empty, imagenet_weights, licence_of
from edgewright.train.backbones.commands import backbones_command, summary_command
from edgewright.train.backbones.facts import CURATED, by_cost, choose_backbones, facts_of
from edgewright.train.backbones.latency import measure_latencies
from edgewright.train.backbones.layers import depth_of, read_layers


def run(command: Any, *arguments: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    document: dict[str, Any] = json.loads(result.stdout)
    return document


# Layers


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("mobilenet_v2", 224),
        ("resnet18", 224),
        ("vgg11_bn", 224),
        ("googlenet", 224),
        ("vit_b_16", 224),
        ("swin_t", 224),
    ],
)
def test_multiplications_are_those_that_torchvision_publishes(backbone: str, size: int) -> None:
    model = build_empty(backbone)
    layers = read_layers(model, torch.zeros(1, 3, size, size, device="meta"))
    published = imagenet_weights(backbone).meta
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(published["_ops"], rel=0.005)
    assert sum(layer.parameters for layer in layers) == published["num_params"]


def test_layer_tells_its_shape_and_cost() -> None:
    layers = {
        layer.name: layer for layer in read_layers(build_empty("resnet18"), torch.zeros(1, 3, 64, 64, device="meta"))
    }
    first, head = layers["conv1"], layers["fc"]
    assert (first.kind, first.output, first.parameters, first.macs) == ("Conv2d", (64, 32, 32), 9408, 9408 * 32 * 32)
    assert (head.kind, head.output, head.parameters, head.macs) == ("Linear", (1000,), 513_000, 512_000)
    assert layers["layer1.0.bn1"].macs == 0


def test_layers_are_in_the_order_of_the_forward_pass() -> None:
    names = [layer.name for layer in read_layers(build_empty("resnet18"), torch.zeros(1, 3, 64, 64, device="meta"))]
    assert (names[0], names[-1]) == ("conv1", "fc")


def test_size_that_a_network_cannot_compute_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match="VGG cannot compute an image"):
        read_layers(build_empty("vgg11"), torch.zeros(1, 3, 16, 16, device="meta"))


@pytest.mark.parametrize(
    ("backbone", "depth"),
    [("alexnet", 8), ("vgg16", 16), ("resnet18", 18), ("resnet50", 50), ("googlenet", 22), ("densenet121", 121)],
)
def test_depth_is_the_number_in_the_networks_name_or_paper(backbone: str, depth: int) -> None:
    assert depth_of(build_empty(backbone)) == depth


def test_network_without_values_has_the_same_parameters() -> None:
    # RegNet reads the values of small tensors while it is built.
    empty, real = build_empty("regnet_y_400mf"), build_backbone("regnet_y_400mf")
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (empty, real)]
    assert shapes[0] == shapes[1]
    assert all(value.is_meta for value in empty.state_dict().values())


# Facts


def test_facts_are_torchvisions() -> None:
    facts = facts_of("resnet18")
    assert (facts.parameters, facts.gmacs, facts.depth, facts.input_px) == (11_689_512, 1.814, 18, 224)
    assert (facts.top1, facts.top5) == (69.758, 89.078)
    assert facts.size_mb == pytest.approx(46.83, abs=0.01)
    assert (facts.weights, facts.published, facts.licence) == (("imagenet",), ("IMAGENET1K_V1",), None)


def test_default_weights_are_named_last() -> None:
    assert facts_of("mobilenet_v2").published == ("IMAGENET1K_V1", "IMAGENET1K_V2")


def test_builtin_weights_are_marked() -> None:
    assert facts_of("mobilenet_v3_small").weights == ("imagenet", "builtin")


def test_cost_follows_the_size() -> None:
    small, large = facts_of("resnet18", 112), facts_of("resnet18")
    assert small.input_px == 112
    assert small.gmacs is not None
    assert large.gmacs is not None
    assert small.gmacs == pytest.approx(large.gmacs / 4, rel=0.1)


def test_cost_is_unknown_where_the_size_is_impossible() -> None:
    facts = facts_of("vgg11", 16)
    assert facts.gmacs is None
    assert by_cost([facts, facts_of("squeezenet1_1")])[-1] is facts


def test_only_the_licence_that_torchvision_states_is_told() -> None:
    assert licence_of(imagenet_weights("vit_h_14")) == "CC-BY-NC-4.0"
    assert licence_of(imagenet_weights("resnet18")) is None


# Choosing


def test_usual_networks_are_all_there() -> None:
    assert choose_backbones(everything=False, text=None) == list(CURATED)


def test_all_is_more_than_the_usual_ones() -> None:
    assert set(CURATED) < set(choose_backbones(everything=True, text=None))


def test_filter_narrows_the_usual_ones_first() -> None:
    assert choose_backbones(everything=False, text="resnet") == ["resnet18", "resnet34", "resnet50"]
    assert "resnet152" in choose_backbones(everything=True, text="resnet")


def test_filter_finds_what_is_not_usual() -> None:
    assert choose_backbones(everything=False, text="swin_v2") == ["swin_v2_b", "swin_v2_s", "swin_v2_t"]


def test_filter_that_finds_nothing_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match="No backbone contains 'zzz'"):
        choose_backbones(everything=False, text="zzz")


def test_filter_searches_timm() -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    assert choose_backbones(everything=False, text="timm:efficientnet_lite0") == [
        "timm:efficientnet_lite0",
        "timm:tf_efficientnet_lite0",
    ]
    facts = facts_of("timm:efficientnet_lite0")
    assert (facts.licence, facts.input_px, facts.top1) == ("apache-2.0", 224, None)
    assert facts.gmacs == pytest.approx(0.385, abs=0.01)


def test_filter_on_timm_must_say_enough() -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    with pytest.raises(UsageError, match=r"--filter timm:resnet fits \d+ backbones\. Expected at most 40"):
        choose_backbones(everything=False, text="timm:resnet")


# Commands


def test_document_is_sorted_by_cost() -> None:
    found = run(backbones_command, "--filter", "net_v2")
    names = [row["name"] for row in found["backbones"]]
    assert names == ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mobilenet_v2"]
    assert found["latency"] is None
    assert set(found["backbones"][0]) >= {
        "parameters", "size_mb", "gmacs", "depth", "top1", "top5", "input_px", "licence", "weights",
    }  # fmt: skip


@pytest.mark.slow
def test_latency_is_measured_on_request() -> None:
    found = run(backbones_command, "--filter", "squeezenet", "--imgsz", "64", "--latency")
    latencies = {row["name"]: row["p50_ms"] for row in found["backbones"]}
    # 1.0 multiplies more than twice as often as 1.1.
    assert 0 < latencies["squeezenet1_1"] < latencies["squeezenet1_0"]
    assert found["latency"]["batch"] == 1
    assert found["latency"]["precision"] == "fp32"


@pytest.mark.slow
def test_latency_grows_with_the_size() -> None:
    small, _ = measure_latencies([("shufflenet_v2_x0_5", 64, 1)])
    large, _ = measure_latencies([("shufflenet_v2_x0_5", 224, 1)])
    assert small["shufflenet_v2_x0_5"] < large["shufflenet_v2_x0_5"]


def test_catalogue_reads_no_weights_and_needs_no_network(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import typer; from edgewright.train.backbones.commands import backbones_command\n"
        "app = typer.Typer(); app.command()(backbones_command); app(['--filter', 'squeezenet', '--json'])"
    )
    environment = {"TORCH_HOME": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_commands_are_light_at_import() -> None:
    code = (
        "import sys, edgewright.train.backbones.commands;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'timm', 'openvino')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_summary_groups_layers_by_stage() -> None:
    found = run(summary_command, "resnet18", "--freeze", "3", "--classes", "5", "--imgsz", "64")
    assert (found["backbone"], found["input_px"], found["classes"], found["cuts"]) == ("resnet18", 64, 5, 5)
    assert [stage["frozen"] for stage in found["stages"]] == [True] * 3 + [False] * 3
    assert [stage["head"] for stage in found["stages"]] == [False] * 5 + [True]
    assert found["stages"][0]["output"] == [64, 32, 32]
    assert found["stages"][0]["layers"][0]["name"] == "conv1"
    assert [layer["name"] for layer in found["stages"][-1]["layers"]] == ["fc"]
    assert found["stages"][-1]["parameters"] == 512 * 5 + 5
    assert found["parameters"] == sum(stage["parameters"] for stage in found["stages"])
    assert found["trainable"] == sum(stage["parameters"] for stage in found["stages"][3:])


def test_summary_agrees_with_published_figures() -> None:
    found = run(summary_command, "mobilenet_v2")
    assert found["parameters"] == found["trainable"] == 3_504_872
    assert found["gmacs"] == pytest.approx(0.301, abs=0.001)


def test_summary_shows_a_network_that_cannot_be_divided() -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    found = run(summary_command, "timm:mobilevit_xxs", "--imgsz", "64")
    assert (found["cuts"], len(found["stages"])) == (0, 1)
    assert found["parameters"] > 1_000_000


def test_summary_of_unknown_backbone_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match="Unknown backbone 'resnet19'"):
        run(summary_command, "resnet19")


def test_summary_of_more_frozen_stages_than_there_are_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match="--freeze 9: 'resnet18' has 5 stages below its head"):
        run(summary_command, "resnet18", "--freeze", "9", "--imgsz", "64")
