"""The data type of training: what was asked for, what the device can do, and what is faster here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgewright.runtime.errors import UsageError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train import precision
from edgewright.train.backbones.network import Network
from edgewright.train.precision import choose_precision

CPU = torch.device("cpu")


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 3)
    )
    return Network(backbone, Preprocess(resize=16, crop=16)).eval()


@pytest.mark.parametrize(("wanted", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_is_asked_for_is_used(network: Network, wanted: str, expected: torch.dtype) -> None:
    assert choose_precision(wanted, network, 16, 2, CPU) == expected


def test_half_precision_is_refused_on_a_cpu(network: Network) -> None:
    with pytest.raises(UsageError, match=r"--precision fp16 needs a GPU\. Use fp32, bf16 or auto on a CPU"):
        choose_precision("fp16", network, 16, 2, CPU)


def test_half_precision_is_for_gpus(network: Network) -> None:
    assert choose_precision("fp16", network, 16, 2, torch.device("cuda")) == torch.float16


def test_measuring_leaves_the_network_and_the_random_numbers_alone(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    seconds = precision._step_seconds(network, 16, 2)
    assert set(seconds) == {torch.float32, torch.bfloat16}
    assert all(0 < value < 10 for value in seconds.values())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_auto_is_what_the_cpu_is_faster_with(network: Network) -> None:
    chosen = choose_precision("auto", network, 16, 2, CPU)
    if precision._cpu_has_bf16():
        assert chosen in (torch.float32, torch.bfloat16)
    else:
        assert chosen == torch.float32


@pytest.mark.parametrize(
    ("fp32_s", "bf16_s", "expected"),
    [(1.0, 0.5, torch.bfloat16), (1.0, 0.95, torch.float32), (1.0, 1.0, torch.float32), (0.5, 1.0, torch.float32)],
)
def test_bf16_must_be_worth_it(
    network: Network, monkeypatch: pytest.MonkeyPatch, fp32_s: float, bf16_s: float, expected: torch.dtype
) -> None:
    # What a machine measures is not for a test to choose; the decision from given figures is.
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_seconds", lambda *_: {torch.float32: fp32_s, torch.bfloat16: bf16_s})
    assert choose_precision("auto", network, 16, 2, CPU) == expected
