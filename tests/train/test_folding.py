"""A folded backbone computes what it did, and finds back to its own layout after training."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.surgery import replace_head, trace
from edgewright.train.folding import fold_batchnorm

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


class OutOfTrace(nn.Module):
    """What it does depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.convolution(images)).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(features if images.sum() > 0 else -features)
        return logits


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "dense":
        return DenseBlocks()
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
    # A few batches of pictures give running statistics that are neither 0 nor 1, and activations that neither vanish
    # nor explode on the way to the logits.
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


def assert_same_function(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-2)) < 1e-4


def train_a_little(backbone: nn.Module, steps: int = 2) -> None:
    backbone.train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=3e-2)
    for step in range(steps):
        torch.manual_seed(step)
        loss = functional.cross_entropy(backbone(torch.randn(4, 3, SIZE, SIZE)), torch.tensor([0, 1, 2, 3]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        # Without normalisation, a network of random weights would be thrown far off by its first gradients.
        nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()


def norms(backbone: nn.Module) -> list[str]:
    return [name for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_folded_backbone_is_the_same_function(name: str) -> None:
    backbone = pretrained(name)
    expected = computed(backbone)
    fold_batchnorm(backbone)
    assert_same_function(computed(backbone), expected)


@pytest.mark.parametrize("name", FOLDED_WHOLE)
def test_no_norm_is_left_where_each_follows_a_convolution(name: str) -> None:
    backbone = pretrained(name)
    assert norms(backbone)
    fold_batchnorm(backbone)
    assert norms(backbone) == []


def test_norm_without_a_convolution_before_it_stays() -> None:
    backbone = pretrained("dense")
    fold_batchnorm(backbone)
    # The stem's norm is gone. The first in the blocks follows a ReLU, the others a concatenation.
    assert norms(backbone) == ["norms.0", "norms.1", "last_norm"]


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_state_loads_strictly_into_an_untouched_backbone(name: str) -> None:
    backbone = pretrained(name)
    original = copy.deepcopy(backbone)
    state = fold_batchnorm(backbone).state()
    assert list(state) == list(original.state_dict())
    untouched = fresh(name)
    untouched.load_state_dict(state)
    assert_same_function(computed(untouched), computed(original))


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_untouched_backbone_computes_what_the_folded_one_learned(name: str) -> None:
    backbone = pretrained(name)
    folding = fold_batchnorm(backbone)
    before = computed(backbone)
    train_a_little(backbone)
    learned = computed(backbone)
    assert (learned - before).abs().max() > 1e-3 * before.abs().max()
    untouched = fresh(name)
    untouched.load_state_dict(folding.state())
    assert_same_function(computed(untouched), learned)


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_load_is_the_inverse_of_state(name: str) -> None:
    backbone = pretrained(name)
    folding = fold_batchnorm(backbone)
    train_a_little(backbone)
    learned, state = computed(backbone), {key: value.clone() for key, value in folding.state().items()}
    train_a_little(backbone)
    assert (computed(backbone) - learned).abs().max() > 1e-3 * learned.abs().max()
    folding.load(state)
    assert_same_function(computed(backbone), learned)


def test_state_can_be_taken_of_tensors_that_are_not_in_the_backbone() -> None:
    backbone = pretrained("resnet18")
    folding = fold_batchnorm(backbone)
    held = {key: value.clone() for key, value in backbone.state_dict().items()}
    expected = computed(backbone)
    train_a_little(backbone)
    untouched = fresh("resnet18")
    untouched.load_state_dict(folding.state(held))
    assert_same_function(computed(untouched), expected)


def test_state_is_not_changed_by_later_training() -> None:
    backbone = pretrained("resnet18")
    folding = fold_batchnorm(backbone)
    state = folding.state()
    before = {key: value.clone() for key, value in state.items()}
    train_a_little(backbone)
    folded = {key for key in state if key.startswith(("conv1", "bn1"))}
    assert folded
    assert all(torch.equal(state[key], before[key]) for key in folded)


@pytest.mark.parametrize("name", FOLDED_WHOLE)
def test_training_and_evaluation_are_one_function(name: str) -> None:
    backbone = pretrained(name)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fold_batchnorm(backbone)
    expected = computed(backbone)
    backbone.train()
    with torch.no_grad():
        assert torch.equal(backbone(images()), expected)


def test_norm_that_is_left_keeps_its_statistics_and_learns_gain_and_shift() -> None:
    backbone = pretrained("dense")
    fold_batchnorm(backbone)
    norm = backbone.get_submodule("last_norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = (norm.running_mean.clone(), norm.running_var.clone(), norm.weight.detach().clone())
    train_a_little(backbone)
    assert torch.equal(norm.running_mean, statistics[0])
    assert torch.equal(norm.running_var, statistics[1])
    assert not torch.equal(norm.weight, statistics[2])
    backbone.train()
    assert not norm.training


@pytest.mark.parametrize("gain", [0.0, 1e-12, -1e-12])
def test_dead_channel_stays_dead_and_can_learn(gain: float) -> None:
    backbone = pretrained("resnet18")
    norm = backbone.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[3:10] = gain
    original = copy.deepcopy(backbone)
    folding = fold_batchnorm(backbone)
    assert_same_function(computed(backbone), computed(original))
    untouched = fresh("resnet18")
    untouched.load_state_dict(folding.state())
    assert_same_function(computed(untouched), computed(original))
    train_a_little(backbone)
    state = folding.state()
    assert all(value.isfinite().all() for value in state.values())
    untouched.load_state_dict(state)
    assert_same_function(computed(untouched), computed(backbone))


def test_channel_that_never_varied_is_folded() -> None:
    backbone = pretrained("resnet18")
    norm = backbone.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var[3:10] = 0.0
    with torch.no_grad():
        backbone.get_submodule("conv1").weight[3:10] = 0.0  # type: ignore[operator, index]
    original = copy.deepcopy(backbone)
    folding = fold_batchnorm(backbone)
    assert_same_function(computed(backbone), computed(original))
    train_a_little(backbone)
    untouched = fresh("resnet18")
    untouched.load_state_dict(folding.state())
    assert_same_function(computed(untouched), computed(backbone))


def test_convolution_that_had_a_bias_keeps_one() -> None:
    torch.manual_seed(0)

    def build() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=True),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )

    backbone = build()
    backbone.train()
    with torch.no_grad():
        for _ in range(20):
            backbone(images() * 2 + 1)
    expected = computed(backbone)
    folding = fold_batchnorm(backbone)
    assert_same_function(computed(backbone), expected)
    train_a_little(backbone)
    learned, state = computed(backbone), folding.state()
    untouched = build()
    untouched.load_state_dict(state)
    assert_same_function(computed(untouched), learned)
    folding.load(state)
    assert_same_function(computed(backbone), learned)


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


def test_what_others_share_is_not_folded() -> None:
    torch.manual_seed(0)
    backbone = Shared()
    backbone.train()
    with torch.no_grad():
        for _ in range(20):
            backbone(images() * 2 + 1)
    expected = computed(backbone)
    folding = fold_batchnorm(backbone)
    assert norms(backbone) == ["norm", "other", "last"]
    assert_same_function(computed(backbone), expected)
    Shared().load_state_dict(folding.state())


def test_backbone_that_cannot_be_traced_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    backbone = OutOfTrace().eval()
    expected = computed(backbone)
    folding = fold_batchnorm(backbone)
    assert norms(backbone) == ["norm"]
    assert torch.equal(computed(backbone), expected)
    train_a_little(backbone)
    untouched = OutOfTrace()
    untouched.load_state_dict(folding.state())
    assert torch.equal(computed(untouched), computed(backbone))


@pytest.mark.parametrize("name", [*FOLDED_WHOLE, "dense"])
def test_folded_backbone_can_still_be_traced(name: str) -> None:
    backbone = pretrained(name)
    fold_batchnorm(backbone)
    backbone.train()
    expected = computed(backbone)
    for graph in (fx.symbolic_trace(backbone), trace(backbone)):
        called = [type(graph.get_submodule(str(node.target))) for node in graph.graph.nodes if node.op == "call_module"]
        # A norm that were looked into would be a function with the mode it was traced in.
        assert sum(issubclass(kind, nn.BatchNorm2d) for kind in called) == len(norms(backbone))
        assert_same_function(computed(graph), expected)
