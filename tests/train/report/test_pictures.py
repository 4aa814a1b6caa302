"""Every picture is drawn whatever the classes are called and however many there are. Warnings, such as that of a
missing letter, are errors here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer

from edgewright.runtime.errors import UsageError
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.network import Network
from edgewright.train.data.samples import Sample
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.report.classes import plot_confusion, plot_per_class, plot_reliability
from edgewright.train.report.curves import epoch_times, plot_compare, plot_curves
from edgewright.train.report.layers import first_filters, plot_filters, plot_responses, responses
from edgewright.train.report.mistakes import plot_mistakes, worst_mistakes
from edgewright.train.report.scores import class_scores
from edgewright.train.report.style import legible
from edgewright.train.stages import StageRecord

LARGEST_FILE = 300_000

ODD = ("$\\frac{a}{b}$", "犬", "a\nb", "кот", "x" * 300, "$", "<script>", "\udce9")


def result_of(classes: int, count: int = 80, seed: int = 0) -> SplitResult:
    rng = np.random.default_rng(seed)
    return SplitResult(rng.normal(size=(count, classes)).astype(np.float32), rng.integers(0, classes, count))


def picture(path: Path) -> Image.Image:
    assert path.stat().st_size < LARGEST_FILE
    with Image.open(path) as stored:
        image: Image.Image = stored.convert("RGB")
    assert len(image.getcolors(1 << 24) or ()) > 2, "nothing was drawn"
    return image


def sample(colour: int, size: int = 64) -> Sample:
    buffer = io.BytesIO()
    rng = np.random.default_rng(colour)
    Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return Sample(buffer.getvalue(), 0, f"{colour}.png")


CLASSES = [ODD, tuple(f"class-{number}" for number in range(40)), tuple(map(str, range(1000)))]


@pytest.mark.parametrize("classes", CLASSES, ids=["odd", "40", "1000"])
def test_class_pictures(classes: Sequence[str], tmp_path: Path) -> None:
    confusion = result_of(len(classes)).confusion()
    plot_confusion(confusion, classes, "test", tmp_path / "confusion.png")
    plot_per_class(class_scores(confusion, classes, dict.fromkeys(classes, 3)), classes, tmp_path / "bars.png")
    assert picture(tmp_path / "confusion.png").width < 1200
    assert picture(tmp_path / "bars.png").height < 1400


@pytest.mark.parametrize("temperature", [None, 2.5])
def test_reliability(temperature: float | None, tmp_path: Path) -> None:
    plot_reliability(result_of(3), temperature, tmp_path / "reliability.png")
    wide = picture(tmp_path / "reliability.png").width > 600
    assert wide == (temperature is not None)


def test_worst_mistake_is_the_surest() -> None:
    result = SplitResult(np.array([[0, 3], [0, 9], [5, 0], [0, 6]], dtype=np.float32), np.array([0, 0, 0, 1]))
    assert [(item.index, item.said, item.true) for item in worst_mistakes(result)] == [(1, 1, 0), (0, 1, 0)]
    assert worst_mistakes(result, most=1)[0].score == pytest.approx(1 / (1 + np.exp(-9)))


@pytest.mark.parametrize("count", [1, 7, 12])
def test_mistakes(count: int, tmp_path: Path) -> None:
    result = SplitResult(np.tile(np.eye(len(ODD), dtype=np.float32)[1], (count, 1)), np.zeros(count, dtype=np.int64))
    samples = [sample(number) for number in range(count)]
    spec = Preprocess(resize=32, crop=32)
    plot_mistakes(worst_mistakes(result), samples, ODD, spec, tmp_path / "mistakes.png")
    picture(tmp_path / "mistakes.png")


def epoch(number: int, seconds: float, stage: str = "") -> EpochRecord:
    return EpochRecord(number, 1 / number, 0.5, 0.4 + 0.01 * number, 1e-3, seconds, stage=stage)


def stage(name: str, seconds: float, kept: bool = True) -> StageRecord:
    return StageRecord(
        name=name, trained_stages=1, epochs=2, val_top1=0.5, test_top1=None, gain=0.1, noise=0.01, seconds=seconds,
        kept=kept, why="because",
    )  # fmt: skip


STAGES = (stage("head", 10.0), stage("top $1$ of 5", 30.0), stage("all", 100.0, kept=False))


def test_epochs_are_the_last_seconds_of_their_stage() -> None:
    records = [
        epoch(1, 0.0, "head"),
        epoch(2, 4.0, "top $1$ of 5"),
        epoch(3, 5.0, "top $1$ of 5"),
        epoch(4, 9.0, "all"),
    ]
    assert epoch_times(records, STAGES) == [None, 25.0, 30.0, 100.0]


@pytest.mark.parametrize("strategy", ["head", "full"])
@pytest.mark.parametrize("count", [1, 60])
def test_curves(strategy: str, count: int, tmp_path: Path) -> None:
    plot_curves([epoch(number + 1, 2.0) for number in range(count)], (), strategy, tmp_path / "curves.png")
    picture(tmp_path / "curves.png")


def test_curves_over_stages(tmp_path: Path) -> None:
    records = [epoch(1, 0.0, "head"), epoch(2, 4.0, "top $1$ of 5"), epoch(3, 5.0, "all")]
    plot_curves(records, STAGES, "auto", tmp_path / "curves.png")
    picture(tmp_path / "curves.png")


def test_curves_of_an_auto_that_stopped_at_the_head(tmp_path: Path) -> None:
    plot_curves([epoch(1, 0.0, "head")], STAGES[:1], "auto", tmp_path / "curves.png")
    picture(tmp_path / "curves.png")


def test_compare(tmp_path: Path) -> None:
    rows = [
        {"strategy": "head", "val_top1": 0.8, "test_top1": 0.79, "seconds": 30.0, "points": []},
        {
            "strategy": "own $x$",
            "val_top1": 0.9,
            "test_top1": None,
            "seconds": 500.0,
            "points": [(200, 0.7), (400, 0.9)],
        },
    ]
    plot_compare(rows, tmp_path / "compare.png")
    picture(tmp_path / "compare.png")


def test_names_are_cut_and_those_without_letters_numbered() -> None:
    assert legible(["cat", "x" * 50, "$x$", "a\nb", "\ue000"], longest=10) == [
        "cat",
        "x" * 9 + "…",
        "$x$",
        "class 3",
        "class 4",
    ]


def test_filters_are_stretched_one_by_one(tmp_path: Path) -> None:
    layer = nn.Conv2d(3, 70, 5)
    with torch.no_grad():
        layer.weight[3].mul_(100)
    filters = first_filters(nn.Sequential(layer))
    assert filters is not None
    assert filters.shape == (70, 5, 5, 3)
    assert np.allclose(filters.min(axis=(1, 2, 3)), 0, atol=1e-6)
    assert np.allclose(filters.max(axis=(1, 2, 3)), 1, atol=1e-6)
    plot_filters(filters, tmp_path / "filters.png")
    picture(tmp_path / "filters.png")


def test_network_without_convolutions_has_no_filters() -> None:
    assert first_filters(nn.Linear(3, 3)) is None


class Corner(nn.Module):
    """Answers 1 as far as the picture's upper left corner is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 2, 3, padding=1)
        self.shrink = nn.Conv2d(2, 2, 2, stride=2)
        self.again = nn.Conv2d(2, 2, 2, stride=2)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.scale.weight[0, :, 1, 1] = 1
            self.shrink.weight[0, 0] = 0.25
            self.again.weight[0, 0] = 0.25
            self.head.weight[1, 0] = 1

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        value = self.again(self.shrink(self.scale(pixels.permute(0, 3, 1, 2).float() / 255)))
        logits: torch.Tensor = self.head(value.mean((2, 3)))
        return logits


def test_evidence_is_where_the_network_looks(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:8, :8] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    found = responses(Corner(), [("a corner", Sample(buffer.getvalue(), 1, "x.png"))], Preprocess(resize=32, crop=32))
    assert found[0].predicted == 1
    assert found[0].evidence.shape == (8, 8)
    assert found[0].evidence[:2, :2].min() == 1
    assert found[0].evidence[2:, 2:].max() == 0
    plot_responses(found, ["a", "b"], tmp_path / "stages.png")
    picture(tmp_path / "stages.png")


def test_real_network_with_frozen_layers(tmp_path: Path) -> None:
    spec = Preprocess(resize=64, crop=64)
    network = Network(build_backbone("mobilenet_v3_small"), spec).eval().requires_grad_(False)
    found = responses(network, [("a", sample(1)), ("b", sample(2))], spec)
    assert [len(response.stages) for response in found] == [3, 3]
    sides = [maps.shape[1] for _, maps in found[0].stages]
    assert sides == sorted(sides, reverse=True)
    assert all(maps.shape[0] == 4 for _, maps in found[0].stages)
    plot_responses(found, legible(("a",) * 1000), tmp_path / "stages.png")
    picture(tmp_path / "stages.png")


def test_network_that_cannot_be_taken_apart_is_refused_in_words() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            value = pixels.float().mean((1, 2))
            logits: torch.Tensor = self.head(value if value.sum() > 0 else -value)
            return logits

    with pytest.raises(UsageError):
        responses(Fickle(), [("a", sample(1))], Preprocess(resize=32, crop=32))


def test_transformer_has_no_maps_to_show() -> None:
    spec = Preprocess(resize=224, crop=224)
    network = Network(VisionTransformer(224, 56, 1, 2, 8, 16), spec).eval()
    assert responses(network, [("a", sample(1))], spec) == ()
