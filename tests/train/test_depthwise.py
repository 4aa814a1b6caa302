"""The depthwise gradients are PyTorch's own; nothing else about a model changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgewright.train import depthwise
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.depthwise import speed_up_depthwise

CHANNELS = 6
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def convolution(kernel: int, stride: int, **options: Any) -> nn.Conv2d:
    torch.manual_seed(kernel * 10 + stride)
    arguments: dict[str, Any] = {"padding": kernel // 2, "groups": CHANNELS, "bias": False} | options
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, **arguments)


def gradients(module: nn.Conv2d, images: torch.Tensor) -> Gradients:
    """Output, and gradients of a random weighted sum of it with respect to the images and the weight."""
    images = images.clone().requires_grad_()
    output = module(images)
    wanted = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    by_images, by_weight = torch.autograd.grad((output * wanted).sum(), (images, module.weight))
    return output.detach(), by_images, by_weight


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def assert_equal_to_pytorchs(module: nn.Conv2d, images: torch.Tensor) -> None:
    """Double precision on PyTorch's side, so that only our own rounding counts."""
    fast = copy.deepcopy(module)
    speed_up_depthwise(fast)
    assert type(fast) is not nn.Conv2d
    expected = gradients(module.double(), images.double())
    for mine, theirs in zip(gradients(fast, images), expected, strict=True):
        assert mine.shape == theirs.shape
        assert relative_error(mine, theirs) < 1e-4


def pictures(height: int, width: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, CHANNELS, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ours_counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps whose weight gradient is our own."""
    seen: list[tuple[int, ...]] = []
    original = depthwise._weight_gradient

    def counting(images: torch.Tensor, gradient: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(tuple(gradient.shape[2:]))
        return original(images, gradient, *rest)

    monkeypatch.setattr(depthwise, "_weight_gradient", counting)
    return seen


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (14, 14), (13, 10), (5, 1), (28, 28), (31, 20)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_are_pytorchs(kernel: int, stride: int, size: tuple[int, int]) -> None:
    assert_equal_to_pytorchs(convolution(kernel, stride), pictures(*size))


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(5, 16), st.integers(5, 16)),
    count=st.integers(1, 3),
)
def test_gradients_of_any_shape_are_pytorchs(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int], count: int
) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, bias=False)
    assert_equal_to_pytorchs(module, pictures(*size, count))


@pytest.mark.parametrize("size", [(7, 7), (28, 28)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_with_a_bias_is_pytorchs(stride: int, size: tuple[int, int]) -> None:
    fast = convolution(3, stride, bias=True)
    plain = copy.deepcopy(fast).double()
    speed_up_depthwise(fast)
    assert type(fast) is not nn.Conv2d
    images, found = pictures(*size), []
    for module, shown in ((fast, images), (plain, images.double())):
        output = module(shown)
        wanted = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        assert module.bias is not None
        found.append((output.detach(), *torch.autograd.grad((output * wanted).sum(), (module.weight, module.bias))))
    for mine, theirs in zip(*found, strict=True):
        assert relative_error(mine, theirs) < 1e-4


def test_gradients_of_channels_last_pictures_are_pytorchs() -> None:
    assert_equal_to_pytorchs(convolution(5, 2), pictures(9, 9).contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize(("size", "ours"), [((14, 14), True), ((15, 14), False)])
def test_own_gradient_is_used_up_to_14_x_14(
    ours_counted: list[tuple[int, ...]], size: tuple[int, int], ours: bool
) -> None:
    module = convolution(3, 1)
    speed_up_depthwise(module)
    gradients(module, pictures(*size))
    assert ours_counted == ([size] if ours else [])


def test_gradients_of_pictures_that_need_none_are_not_computed(ours_counted: list[tuple[int, ...]]) -> None:
    module = convolution(3, 1)
    speed_up_depthwise(module)
    images = pictures(7, 7)
    torch.autograd.backward(module(images).sum())
    assert images.grad is None
    assert module.weight.grad is not None
    assert ours_counted == [(7, 7)]


def test_training_step_of_a_whole_network_is_pytorchs(ours_counted: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    plain = build_backbone("mobilenet_v3_small", classes=3).eval()
    fast = copy.deepcopy(plain)
    speed_up_depthwise(fast)
    images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 2])
    for model in (plain, fast):
        # Statistics of two pictures would blow rounding up; in eval mode they are constants.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.train()
        torch.autograd.backward(functional.cross_entropy(model(images), labels))
    assert ours_counted
    for (name, mine), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4 * theirs.grad.abs().max().item()), name


# What stays as it was


def test_state_dict_is_unchanged() -> None:
    plain = build_backbone("mobilenet_v3_small", classes=3)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    speed_up_depthwise(plain)
    after = plain.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    build_backbone("mobilenet_v3_small", classes=3).load_state_dict(after)


def test_parameters_are_the_same_objects() -> None:
    module = convolution(3, 1, bias=True)
    weight, bias = module.weight, module.bias
    speed_up_depthwise(module)
    assert module.weight is weight
    assert module.bias is bias


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_only_training_differs(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = convolution(5, 2)
    expected = module(pictures(9, 9)).detach()
    speed_up_depthwise(module)

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("our function is for training alone")

    monkeypatch.setattr(depthwise.DepthwiseFunction, "apply", refuse)
    if mode == "eval":
        assert torch.equal(module.eval()(pictures(9, 9)), expected)
    else:
        with torch.no_grad():
            assert torch.equal(module(pictures(9, 9)), expected)


def other_kinds() -> dict[str, nn.Module]:
    return {
        "dilation": convolution(3, 1, dilation=2),
        "no groups": convolution(3, 1, groups=1),
        "fewer groups than channels": convolution(3, 1, groups=2),
        "two outputs per channel": nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, groups=CHANNELS, bias=False),
        "one channel": nn.Conv2d(1, 1, 3, bias=False),
        "padding by name": convolution(3, 1, padding="same"),
        "reflected border": convolution(3, 1, padding_mode="reflect"),
        "transposed": nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, groups=CHANNELS, bias=False),
        "one axis": nn.Conv1d(CHANNELS, CHANNELS, 3, groups=CHANNELS, bias=False),
    }


@pytest.mark.parametrize("kind", other_kinds())
def test_other_convolutions_are_left_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = other_kinds()[kind]
    channels = next(module.parameters()).shape[0] if kind in ("one channel", "transposed") else CHANNELS
    shown = torch.randn(2, channels, 9, *(() if kind == "one axis" else (9,)))
    expected = module(shown).detach()

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("our function is for plain depthwise convolutions alone")

    monkeypatch.setattr(depthwise.DepthwiseFunction, "apply", refuse)
    speed_up_depthwise(nn.Sequential(module))
    assert torch.equal(module(shown), expected)


def test_twice_is_as_good_as_once() -> None:
    module = convolution(3, 1)
    speed_up_depthwise(module)
    once = type(module)
    speed_up_depthwise(module)
    assert type(module) is once
