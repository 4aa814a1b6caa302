"""Training on a GPU: the same paths, in bf16, with caches filled there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgewright.train.config import TrainConfig
from edgewright.train.trainer import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, which this machine does not have"),
]


@pytest.mark.parametrize("strategy", ["head", "partial", "full", "auto"])
def test_strategy_learns_on_the_gpu(strategy: str, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "data": "digits",
            "backbone": "mobilenet_v3_small",
            "weights": "builtin",
            "strategy": strategy,
            "imgsz": 48,
            "epochs": 4,
            "lr": 2e-3,
            "device": "cuda",
            "out": str(tmp_path / strategy),
        }
    )
    record = train(config).record
    assert record.val_top1 > 0.85
    assert record.precision == ("fp32" if strategy == "head" else "bf16")
