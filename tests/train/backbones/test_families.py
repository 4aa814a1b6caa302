"""Every family of networks that is offered by name can be built, given a head, and cut."""

from __future__ import annotations

import pytest
import torch

from edgewright.runtime.errors import UsageError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone, drop_auxiliary
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of, plan_stages, replace_head, split_at, stage_parameters

CLASSES = 4


def network_of(backbone: str, size: int) -> Network:
    torch.manual_seed(0)
    model = build_backbone(backbone)
    drop_auxiliary(model)
    replace_head(model, CLASSES)
    return Network(model, Preprocess(resize=size, crop=size)).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("googlenet", 64),
        ("inception_v3", 96),
        ("alexnet", 64),
        ("vgg11", 32),
        ("vgg16_bn", 32),
        ("shufflenet_v2_x1_0", 64),
        ("squeezenet1_0", 64),
        ("efficientnet_b0", 64),
        ("mobilenet_v3_large", 64),
        ("resnet50", 64),
        ("mnasnet0_5", 64),
        ("regnet_y_400mf", 64),
        ("convnext_tiny", 64),
    ],
)
def test_parts_compute_what_the_network_does(backbone: str, size: int) -> None:
    network = network_of(backbone, size)
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    assert len(plan.cuts) >= 3
    assert plan.shapes[-1] == (head_of(network)[1].in_features,)
    with torch.inference_mode():
        expected = network(images)
        assert expected.shape == (2, CLASSES)
        for cut in plan.cuts:
            frozen, tail = split_at(plan, cut)
            assert torch.equal(tail(frozen(images)), expected), cut
    names = [name for stage in stage_parameters(network, plan) for name in stage]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


def test_stochastic_depth_stays_a_layer_of_the_tail() -> None:
    network = network_of("efficientnet_b0", 64)
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    plan = plan_stages(network, images[:1])
    _, tail = split_at(plan, plan.cuts[0])
    assert [name for name, module in tail.named_modules() if type(module).__name__ == "StochasticDepth"]


def test_picture_that_is_too_small_is_an_error_of_usage(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"VGG cannot compute an image of 16 x 16 px: .* Use another --imgsz"):
        plan_stages(network_of("vgg11", 16), torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
    assert "Traceback" not in "".join(capfd.readouterr())
