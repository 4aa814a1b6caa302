"""A network that has really learnt the digits, for attacks to be tried on, and two finished runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from edgewright.runtime.preprocess import preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of, plan_stages, replace_head, split_at
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.config import TrainConfig
from edgewright.train.data import read_data
from edgewright.train.run import Run
from edgewright.train.trainer import train


@dataclass(frozen=True)
class Trained:
    """A network, and pictures that its head was not fitted to: uint8 (N, 32, 32, 3), int64 (N)."""

    network: Network
    pixels: torch.Tensor
    labels: torch.Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    spec = preprocess_for("mobilenet_v3_small", "builtin", 32, True)
    data = read_data("digits", seed=0)
    pretrained = load_pretrained("mobilenet_v3_small", "builtin").model
    replace_head(pretrained, 10)
    network = Network(pretrained, spec).eval().requires_grad_(False)
    plan = plan_stages(network, torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    features, _ = split_at(plan, plan.cuts[-1])

    def pixels(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        # A split lists one class after the other.
        order = np.random.default_rng(0).permutation(len(data.splits[split]))[:count]
        samples = [data.splits[split][index] for index in order]
        return (
            torch.from_numpy(np.stack([preprocess(sample.source, spec) for sample in samples])),
            torch.tensor([sample.label for sample in samples]),
        )

    known, known_labels = pixels("train", 600)
    with torch.no_grad():
        fitted = LogisticRegression(C=10, max_iter=20_000).fit(features(known).numpy(), known_labels.numpy())
        _, head = head_of(network)
        head.weight.copy_(torch.from_numpy(fitted.coef_))
        head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return Trained(network, *pixels("test", 40))


@dataclass(frozen=True)
class Runs:
    """Of the digits: only the head trained, and everything from random weights."""

    head: Run
    scratch: Run


@pytest.fixture(scope="session")
def runs(made_once: Callable[[str, Callable[[Path], Any]], Any]) -> Runs:
    def make(folder: Path) -> tuple[Run, Run]:
        def trained(name: str, strategy: str, weights: str) -> Run:
            config = {"data": "digits", "backbone": "mobilenet_v3_small", "imgsz": 32, "epochs": 1, "per_class": 30}
            return train(TrainConfig(**config, strategy=strategy, weights=weights, out=str(folder / name)))

        return trained("only-the-head", "head", "builtin"), trained("from-scratch", "scratch", "none")

    return Runs(*made_once("audited-runs", make))
