"""A backbone is cut at its stages without changing a bit of what it computes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from edgewright.runtime.errors import UsageError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, head_of, plan_stages, replace_head, split_at, stage_parameters

SIZE = 64
CLASSES = 7
BACKBONES = ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121")


@dataclass(frozen=True)
class Cut:
    """The two parts of a network at one cut, and what the first makes of the case's images."""

    name: str
    frozen: nn.Module
    tail: nn.Module
    activations: torch.Tensor


@dataclass(frozen=True)
class Case:
    """A network with a fresh head, its stages, the logits of two images, and every way of cutting it."""

    network: Network
    plan: StagePlan
    logits: torch.Tensor
    cuts: tuple[Cut, ...]


@pytest.fixture(scope="module", params=BACKBONES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every backbone once: building and tracing them takes most of this file's time."""
    torch.manual_seed(0)
    backbone = build_backbone(request.param)
    replace_head(backbone, CLASSES)
    network = Network(backbone, Preprocess(resize=SIZE, crop=SIZE)).eval()
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    cuts = []
    with torch.inference_mode():
        for name in plan.cuts:
            frozen, tail = split_at(plan, name)
            cuts.append(Cut(name, frozen, tail, frozen(images)))
        return Case(network, plan, network(images), tuple(cuts))


def test_there_are_stages_to_freeze(case: Case) -> None:
    assert len(case.plan.cuts) >= 3


def test_each_cut_is_later_than_the_one_before(case: Case) -> None:
    order = [node.name for node in case.plan.graph.graph.nodes]
    positions = [order.index(cut) for cut in case.plan.cuts]
    assert positions == sorted(set(positions))


def test_resolution_falls_from_stage_to_stage(case: Case) -> None:
    heights = [shape[-1] for shape in case.plan.shapes if len(shape) == 3]
    assert heights == sorted(set(heights), reverse=True)


def test_last_cut_is_what_the_head_sees(case: Case) -> None:
    assert case.plan.shapes[-1] == (head_of(case.network)[1].in_features,)


def test_frozen_part_and_tail_compute_what_the_network_does(case: Case) -> None:
    for cut in case.cuts:
        with torch.inference_mode():
            assert torch.equal(cut.tail(cut.activations), case.logits), cut.name


def test_shapes_are_those_of_the_frozen_parts(case: Case) -> None:
    assert [tuple(cut.activations.shape) for cut in case.cuts] == [(2, *shape) for shape in case.plan.shapes]


def test_parts_share_the_networks_parameters(case: Case) -> None:
    whole = {id(parameter) for parameter in case.network.parameters()}
    for cut in case.cuts:
        frozen, tail = ({id(parameter) for parameter in part.parameters()} for part in (cut.frozen, cut.tail))
        assert frozen | tail == whole
        assert not frozen & tail


def test_parts_share_the_networks_running_statistics(case: Case) -> None:
    whole = {id(buffer) for buffer in case.network.buffers()}
    for cut in case.cuts:
        assert {id(buffer) for part in (cut.frozen, cut.tail) for buffer in part.buffers()} <= whole


def test_only_the_head_follows_the_last_cut(case: Case) -> None:
    assert sorted(tuple(parameter.shape) for parameter in case.cuts[-1].tail.parameters()) == [
        (CLASSES,),
        (CLASSES, head_of(case.network)[1].in_features),
    ]


def test_every_parameter_is_in_one_stage(case: Case) -> None:
    stages = stage_parameters(case.network, case.plan)
    names = [name for stage in stages for name in stage]
    assert sorted(names) == sorted(name for name, _ in case.network.named_parameters())
    assert len(stages) == len(case.plan.cuts) + 1


def test_stage_parameters_are_those_that_a_cut_freezes(case: Case) -> None:
    parameters = dict(case.network.named_parameters())
    stages = stage_parameters(case.network, case.plan)
    for number, cut in enumerate(case.cuts, start=1):
        frozen = {id(parameters[name]) for stage in stages[:number] for name in stage}
        assert frozen == {id(parameter) for parameter in cut.frozen.parameters()}, cut.name


def test_last_entry_of_the_stage_parameters_is_the_head(case: Case) -> None:
    name, _ = head_of(case.network)
    assert sorted(stage_parameters(case.network, case.plan)[-1]) == [f"{name}.bias", f"{name}.weight"]


def test_stage_parameters_of_a_copy_are_the_same(case: Case) -> None:
    twin = copy.deepcopy(case.network)
    assert stage_parameters(twin, case.plan) == stage_parameters(case.network, case.plan)


def test_new_head_has_its_classes(case: Case) -> None:
    assert (head_of(case.network)[1].out_features, tuple(case.logits.shape)) == (CLASSES, (2, CLASSES))


def test_training_the_tail_trains_the_network() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("squeezenet1_1")
    replace_head(backbone, CLASSES)
    network = Network(backbone, Preprocess(resize=SIZE, crop=SIZE)).eval()
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    frozen, tail = split_at(plan, plan.cuts[1])
    activations = frozen(images).detach()
    tail(activations).square().sum().backward()
    with torch.no_grad():
        for parameter in tail.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=0.1)
        assert torch.equal(network(images), tail(activations))


class Shared(nn.Module):
    """One convolution used in two stages, one that is never used, and a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.again = self.shared
        self.unused = nn.Conv2d(4, 4, 1)
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.gain = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = self.shared(self.stem(pixels.permute(0, 3, 1, 2).float()))
        logits: torch.Tensor = self.head((self.again(values) * self.gain).mean((2, 3)))
        return logits


def test_shared_and_unused_parameters_stand_in_one_stage() -> None:
    network = Shared()
    plan = plan_stages(network, torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    stages = stage_parameters(network, plan)
    names = [name for stage in stages for name in stage]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert {"unused.weight", "unused.bias"} <= set(stages[0])
    assert [number for number, stage in enumerate(stages) if "shared.weight" in stage] == [1]
    assert [number for number, stage in enumerate(stages) if "gain" in stage] == [len(stages) - 2]
    assert stages[-1] == ["head.weight", "head.bias"]


# Heads


@pytest.mark.parametrize("classes", [2, 1000])
def test_head_keeps_its_features_when_replaced(classes: int) -> None:
    model = build_backbone("mobilenet_v3_small")
    before = head_of(model)[1].in_features
    replace_head(model, classes)
    assert (head_of(model)[1].in_features, head_of(model)[1].out_features) == (before, classes)


def test_other_layers_are_left_alone_when_the_head_is_replaced() -> None:
    model = build_backbone("mobilenet_v3_small")
    name, _ = head_of(model)
    before = {key: value for key, value in model.state_dict().items() if not key.startswith(name)}
    replace_head(model, 5)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_fresh_squeezenet_can_give_negative_logits() -> None:
    torch.manual_seed(0)
    model = build_backbone("squeezenet1_1").eval()
    replace_head(model, 50)
    assert model(torch.rand(1, 3, SIZE, SIZE)).min() < 0


def test_model_without_a_linear_layer_has_no_head() -> None:
    with pytest.raises(UsageError, match="Sequential has no linear layer"):
        head_of(nn.Sequential(nn.Conv2d(3, 4, 3)))


class ConstantResolution(nn.Module):
    """A network whose resolution never changes, as in a transformer, but for the pooling at its end."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(blocks)))
        self.head = nn.Linear(3, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).float()
        logits: torch.Tensor = self.head(self.blocks(images).mean((2, 3)))
        return logits


def test_network_of_constant_resolution_is_divided_in_four() -> None:
    torch.manual_seed(0)
    network, images = ConstantResolution(8), torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    assert len(plan.cuts) == 4
    for cut in plan.cuts:
        frozen, tail = split_at(plan, cut)
        assert torch.equal(tail(frozen(images)), network(images))


class Tokens(nn.Module):
    """The skeleton of a vision transformer: after the patches, no value has four axes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(8 * 8 * 3, 16)
        self.blocks = nn.Sequential(*(nn.Linear(16, 16) for _ in range(8)))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.blocks(self.patches(pixels.float().flatten(1).unsqueeze(1))).mean(1))
        return logits


def test_transformer_is_divided_in_four() -> None:
    plan = plan_stages(Tokens(), torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert len(plan.cuts) == 4
