"""BatchNorm with fixed statistics, done by the convolution: the same function, the same parameters, the same gradients."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.surgery import replace_head, trace
from edgewright.train.depthwise import speed_up_depthwise
from edgewright.train.folding import fix_batchnorm

SIZE = 32
FOLDED_WHOLE = ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"]


class DenseBlocks(nn.Module):
    """DenseNet's order: BatchNorm, ReLU, convolution, and everything before concatenated; one norm follows the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(12)])
        self.convolutions = nn.ModuleList([nn.Conv2d(8, 4, 3, 1, 1, bias=False), nn.Conv2d(12, 4, 3, 1, 1, bias=False)])
        self.last_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.stem_norm(self.stem(images)))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            features = torch.cat([features, convolution(functional.relu(norm(features)))], dim=1)
        logits: torch.Tensor = self.head(functional.relu(self.last_norm(features)).mean(dim=(2, 3)))
        return logits


class Shared(nn.Module):
    """One norm after two convolutions, one convolution used twice, and one whose output is also needed raw."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, 1, 1) for _ in range(3))
        self.norm, self.other, self.last = (nn.BatchNorm2d(3) for _ in range(3))
        self.head = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.first(images)) + self.norm(self.second(images))
        raw = self.third(features)
        features = self.other(raw) + raw
        features = self.last(self.first(features))
        logits: torch.Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class OutOfTrace(nn.Module):
    """What it does depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.convolution(images)).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(features if images.sum() > 0 else -features)
        return logits


def with_biases() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=True),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6, bias=True),
        nn.BatchNorm2d(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


OWN: dict[str, Callable[[], nn.Module]] = {
    "dense": DenseBlocks,
    "shared": Shared,
    "out of trace": OutOfTrace,
    "biases": with_biases,
}
EVERY = [*FOLDED_WHOLE, *OWN]


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in OWN:
        return OWN[name]()
    backbone = build_backbone(name, classes=10)
    replace_head(backbone, 4)
    return backbone


def pretrained(name: str) -> nn.Module:
    """A backbone whose norms have statistics, gains and shifts as training leaves them."""
    return copy.deepcopy(_pretrained(name))


@functools.cache
def _pretrained(name: str) -> nn.Module:
    backbone = fresh(name)
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.empty_like(module.weight).uniform_(0.3, 1.5, generator=generator))
                module.bias.normal_(0, 0.2, generator=generator)
            module.momentum = 0.5
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    backbone.train()
    with torch.no_grad():
        for _ in range(6):
            backbone(torch.randn(8, 3, SIZE, SIZE, generator=generator) * 1.5 + 0.3)
        # A head that tells pictures apart, so that a mistake below shows in its logits.
        last = [module for module in backbone.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.normal_(0, 0.5, generator=generator)
    return backbone.eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


def computed(backbone: nn.Module) -> torch.Tensor:
    backbone.eval()
    with torch.no_grad():
        logits: torch.Tensor = backbone(images())
    return logits


def assert_same(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-2)) < tolerance


def train_a_little(backbone: nn.Module, steps: int = 2) -> None:
    backbone.train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=3e-2)
    for step in range(steps):
        torch.manual_seed(step)
        loss = functional.cross_entropy(backbone(torch.randn(4, 3, SIZE, SIZE)), torch.tensor([0, 1, 2, 3]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()


def statistics(backbone: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.named_buffers() if "running" in name or "num_" in name}


def norms(backbone: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


@pytest.mark.parametrize("name", EVERY)
def test_backbone_is_the_same_function(name: str) -> None:
    backbone = pretrained(name)
    expected = computed(backbone)
    fix_batchnorm(backbone)
    assert_same(computed(backbone), expected)


@pytest.mark.parametrize("name", FOLDED_WHOLE)
def test_every_norm_is_folded_where_each_follows_a_convolution(name: str) -> None:
    backbone = pretrained(name)
    assert fix_batchnorm(backbone) == norms(backbone) > 10


@pytest.mark.parametrize(("name", "folded"), [("dense", 1), ("shared", 0), ("out of trace", 0), ("biases", 2)])
def test_norm_is_folded_only_where_it_is_all_that_sees_the_convolution(name: str, folded: int) -> None:
    assert fix_batchnorm(pretrained(name)) == folded


@pytest.mark.parametrize("name", EVERY)
def test_training_and_evaluation_are_one_function(name: str) -> None:
    backbone = pretrained(name)
    fix_batchnorm(backbone)
    expected = computed(backbone)
    backbone.train()
    with torch.no_grad():
        assert torch.equal(backbone(images()), expected)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_a_batchnorm_with_fixed_statistics(name: str, fast: bool) -> None:
    plain = pretrained(name)
    backbone = copy.deepcopy(plain)
    fix_batchnorm(backbone)
    if fast:
        speed_up_depthwise(backbone)
    backbone.train()
    # The oracle is PyTorch's own BatchNorm in eval mode, whose statistics are constants. In double precision, or a
    # rounded value on the other side of a ReLU's bend would count.
    for model in (backbone, plain.eval()):
        logits = model.double()(images().double())
        torch.autograd.backward(functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])))
    expected = dict(plain.named_parameters())
    for key, mine in backbone.named_parameters():
        theirs = expected[key].grad
        if theirs is None:
            assert mine.grad is None, key
            continue
        assert mine.grad is not None, key
        if theirs.norm() > 1e-12:
            assert float((mine.grad - theirs).norm() / theirs.norm()) < 1e-8, key


@pytest.mark.parametrize("name", EVERY)
def test_state_keeps_its_names_and_loads_into_an_untouched_backbone_after_training(name: str) -> None:
    backbone = pretrained(name)
    names = list(backbone.state_dict())
    fix_batchnorm(backbone)
    assert list(backbone.state_dict()) == names
    before = computed(backbone)
    train_a_little(backbone)
    learned = computed(backbone)
    assert (learned - before).abs().max() > 1e-3 * before.abs().max()
    untouched = fresh(name)
    untouched.load_state_dict(backbone.state_dict())
    assert_same(computed(untouched), learned)
    other = pretrained(name)
    fix_batchnorm(other)
    other.load_state_dict(untouched.state_dict())
    assert torch.equal(computed(other), learned)


@pytest.mark.parametrize("name", EVERY)
def test_statistics_stay_and_gain_and_shift_learn(name: str) -> None:
    backbone = pretrained(name)
    fix_batchnorm(backbone)
    before, learning = statistics(backbone), {}
    for key, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            learning[key] = (module.weight.detach().clone(), module.bias.detach().clone())
    train_a_little(backbone)
    after = statistics(backbone)
    assert before
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    for key, (weight, bias) in learning.items():
        norm = backbone.get_submodule(key)
        assert not torch.equal(norm.get_parameter("weight"), weight) or not torch.equal(
            norm.get_parameter("bias"), bias
        )


@pytest.mark.parametrize("gain", [0.0, 1e-12, -1e-12])
def test_dead_channel_can_learn(gain: float) -> None:
    backbone = pretrained("resnet18")
    norm = backbone.get_submodule("bn1")
    with torch.no_grad():
        norm.get_parameter("weight")[3:10] = gain
    expected = computed(backbone)
    fix_batchnorm(backbone)
    assert_same(computed(backbone), expected)
    train_a_little(backbone)
    assert all(value.isfinite().all() for value in backbone.state_dict().values())
    assert norm.get_parameter("weight")[3:10].abs().max() > 1e-8


@pytest.mark.parametrize("name", EVERY)
def test_copy_learns_by_itself(name: str) -> None:
    backbone = pretrained(name)
    fix_batchnorm(backbone)
    expected = computed(backbone)
    twin = copy.deepcopy(backbone)
    assert torch.equal(computed(twin), expected)
    train_a_little(twin)
    assert torch.equal(computed(backbone), expected)
    untouched = fresh(name)
    untouched.load_state_dict(twin.state_dict())
    assert_same(computed(untouched), computed(twin))


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_backbone_can_still_be_traced(name: str) -> None:
    backbone = pretrained(name)
    fix_batchnorm(backbone)
    expected = computed(backbone)
    backbone.train()
    graph = trace(backbone)
    called = [graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"]
    # A norm that were looked into would be a function with the mode it was traced in.
    assert sum(isinstance(module, nn.BatchNorm2d) for module in called) == norms(backbone)
    assert_same(computed(graph), expected)


def test_channels_last_is_the_same_function() -> None:
    backbone = pretrained("mobilenet_v3_small")
    fix_batchnorm(backbone)
    expected = computed(backbone)
    speed_up_depthwise(backbone)
    backbone.to(memory_format=torch.channels_last)
    assert_same(computed(backbone), expected)


def test_bf16_step_is_close_to_the_fp32_step() -> None:
    backbone = pretrained("resnet18")
    fix_batchnorm(backbone)
    backbone.train()
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = backbone(images())
        torch.autograd.backward(functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3])))
        gradients.append(torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None]))
    assert gradients[1].dtype == torch.float32
    assert functional.cosine_similarity(*gradients, dim=0) > 0.9
