"""A run as the source of another: its body is reused, its head is not, and its preprocessing goes with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from edgewright.train.backbones.summary import summarise
from edgewright.train.backbones.weights import load_pretrained
from edgewright.train.config import TrainConfig
from edgewright.train.run import Run, read_run
from edgewright.train.trainer import train

BACKBONE = "mobilenet_v3_small"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Runs:
    """Two runs: one on the digits 0 to 4, and one on 5 to 9 that starts from it."""

    source: Run
    reused: Run
    digits: Path


def write_digits(root: Path, digits: range, each: int) -> Path:
    data = load_digits()
    for digit in digits:
        folder = root / f"digit {digit}"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(data.images[data.target == digit][:each]):
            grey = Image.fromarray((pixels * 15.9375).astype(np.uint8))
            grey.convert("RGB").resize((32, 32)).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("reuse")
    first, second = write_digits(root / "low", range(5), 60), write_digits(root / "high", range(5, 10), 40)
    common = {"backbone": BACKBONE, "mirror": False}
    source = train(
        TrainConfig(
            data=str(first), weights="builtin", strategy="full", epochs=2, imgsz=32, out=str(root / "source"), **common
        )
    )
    reused = train(
        TrainConfig(data=str(second), weights=str(source.folder), strategy="head", out=str(root / "reused"), **common)
    )
    return Runs(source, reused, second)


def test_preprocessing_follows_the_source(runs: Runs) -> None:
    assert runs.reused.record.preprocess == runs.source.record.preprocess
    assert runs.reused.record.preprocess.crop == 32


def test_body_is_the_sources_and_the_head_is_new(runs: Runs) -> None:
    before, after = (load_file(run.folder / "best.safetensors") for run in (runs.source, runs.reused))
    body = [name for name in before if not name.startswith("classifier.3.")]
    assert all(torch.equal(before[name], after[name]) for name in body)
    assert not torch.equal(before["classifier.3.weight"], after["classifier.3.weight"])


def test_classes_are_the_new_ones(runs: Runs) -> None:
    assert runs.reused.record.classes == tuple(f"digit {digit}" for digit in range(5, 10))
    assert runs.reused.record.weights == "run source"


def test_reused_run_has_learned(runs: Runs) -> None:
    assert runs.reused.record.val_top1 >= 0.7


def test_network_of_the_reused_run_can_be_opened(runs: Runs) -> None:
    network = read_run(runs.reused.folder).network()
    assert network(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape == (1, 5)


def test_source_of_the_source_can_be_loaded_as_it_is(runs: Runs) -> None:
    pretrained = load_pretrained(BACKBONE, str(runs.reused.folder))
    assert pretrained.classes == runs.reused.record.classes
    assert pretrained.licence == runs.source.record.weights_licence


def test_summary_of_a_run_shows_what_it_froze(runs: Runs) -> None:
    head_only, everything = summarise(str(runs.reused.folder)), summarise(str(runs.source.folder))
    assert [stage.frozen for stage in head_only.stages] == [True] * head_only.cuts + [False]
    assert head_only.trainable == 1024 * 5 + 5
    assert everything.trainable == everything.parameters
    assert (head_only.input_px, head_only.classes) == (32, 5)


def test_run_of_a_timm_network_is_reused(runs: Runs, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    backbone = "timm:mobilenetv3_small_050"
    source = train(
        TrainConfig(
            data=str(runs.digits),
            backbone=backbone,
            strategy="scratch",
            epochs=1,
            imgsz=32,
            out=str(tmp_path / "source"),
        )
    )
    reused = train(
        TrainConfig(
            data=str(runs.digits),
            backbone=backbone,
            weights=str(source.folder),
            strategy="head",
            out=str(tmp_path / "r"),
        )
    )
    assert json.loads((reused.folder / "run.json").read_text())["backbone"] == backbone
    assert reused.record.preprocess == source.record.preprocess
    before, after = (load_file(run.folder / "best.safetensors") for run in (source, reused))
    assert torch.equal(before["conv_stem.weight"], after["conv_stem.weight"])
