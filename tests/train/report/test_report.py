"""The whole report of a run: files, figures, and classes whose names would be markup."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.data import ImageData, Skipped, read_data
from edgewright.train.evaluation import SplitResult
from edgewright.train.loop import EpochRecord
from edgewright.train.report import write_report
from edgewright.train.run import RunRecord
from edgewright.train.stages import StageRecord
from edgewright.train.strategies import Outcome
from edgewright.train.temperature import Calibration

BACKBONE = "mobilenet_v3_small"
CLASSES = ("<script>alert(1)<", "犬 & $x$")
PICTURES = {"per_class.png", "confusion_matrix.png", "reliability.png", "filters.png", "stages.png", "curves.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "my run"
    path.mkdir()
    backbone = build_backbone(BACKBONE)
    replace_head(backbone, len(CLASSES))
    save_file(backbone.state_dict(), path / "best.safetensors")
    (path / "config.yaml").write_text("data: <b>here</b>\nseed: 7\n")
    return path


@pytest.fixture
def data(picture_folder: Callable[[Mapping[str, int]], Path]) -> ImageData:
    root = picture_folder({f"{split}/{name}": 4 for split in ("train", "val", "test") for name in CLASSES})
    return replace(read_data(str(root), seed=0), skipped=(Skipped("train/<i>.txt", "not a picture"),))


def outcome(data: ImageData, wrong: int, *, stages: tuple[StageRecord, ...] = ()) -> Outcome:
    """Sure answers, of which the first `wrong` of each split are wrong."""
    results = {}
    for split in ("val", "test"):
        if data.splits[split]:
            labels = np.array([sample.label for sample in data.splits[split]])
            said = np.where(np.arange(len(labels)) < wrong, 1 - labels, labels)
            results[split] = SplitResult(4 * np.eye(2, dtype=np.float32)[said], labels)
    records = tuple(
        EpochRecord(number, 1 / number, 0.8, 0.5 + 0.1 * number, 1e-3, 2.0, stage=stages[-1].name if stages else "")
        for number in (1, 2, 3)
    )
    return Outcome(records, results, "every layer trained", stages=stages)


def record(data: ImageData, found: Outcome, strategy: str, calibration: Calibration | None = None) -> RunRecord:
    return RunRecord(
        name="my run",
        edgewright="1",
        torch="2",
        backbone=BACKBONE,
        classes=data.classes,
        preprocess=Preprocess(resize=64, crop=64),
        strategy=strategy,
        note=found.note,
        weights="random",
        weights_licence=None,
        data=data.origin,
        counts={split: data.counts(split) for split in data.splits},
        mirrored=True,
        resize_to_crop=False,
        seed=7,
        best_epoch=3,
        val_top1=found.results["val"].top1,
        test_top1=found.results["test"].top1 if "test" in found.results else None,
        seconds=90.0,
        finished_at="2026-01-01T00:00:00+00:00",
        stages=found.stages,
        calibration=calibration,
    )


class Page(HTMLParser):
    """Tags, sources and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_of_stages_with_mistakes(folder: Path, data: ImageData) -> None:
    stages = tuple(
        StageRecord(
            name=name, trained_stages=number, epochs=3 * number, val_top1=0.5, test_top1=None, gain=gain, noise=0.02,
            seconds=30.0 * (number + 1), kept=gain >= 0, why=why,
        )
        for number, (name, gain, why) in enumerate([("head", 0.0, "the start"), ("all", -0.11, "worse <than> before")])
    )  # fmt: skip
    found = outcome(data, wrong=3, stages=stages)
    calibration = Calibration(
        temperature=0.5, ece_before=0.2, ece_after=0.04, nll_before=0.9, nll_after=0.7, split="test"
    )
    write_report(folder, record(data, found, "auto", calibration), data, found)

    page = Page((folder / "report.html").read_text())
    markdown = (folder / "report.md").read_text()
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == len(PICTURES | {"mistakes.png"})
    assert all((folder / name).stat().st_size < 300_000 for name in PICTURES | {"mistakes.png"})
    for text in (page.text, markdown):
        assert "5 of 8 test pictures are named right: 62.5 %" in text
        assert "30.6 % to 86.3 %" in text
        assert "from 20.0 % to 4.0 %" in text
        assert "-11.0" in text
        assert "seed: 7" in text
    for text in (*CLASSES, "worse <than> before", "train/<i>.txt", "edgewright export"):
        assert text in page.text
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [row["stage"] for row in rows] == ["all"] * 3
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_report_without_test_split_and_without_mistakes(folder: Path, data: ImageData) -> None:
    data = replace(data, splits={**data.splits, "test": ()}, skipped=())
    found = outcome(data, wrong=0)
    write_report(folder, record(data, found, "head"), data, found)
    page = Page((folder / "report.html").read_text())
    assert "8 of 8 validation pictures are named right: 100.0 %" in page.text
    assert "There is no test split" in page.text
    assert "There is none on this split." in page.text
    assert "Left out" not in page.text
    assert not (folder / "mistakes.png").exists()
    assert len(page.sources) == len(PICTURES)
    assert "penalty" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_thousand_classes_fill_no_thousand_rows(folder: Path, data: ImageData) -> None:
    classes = tuple(f"kind {number}" for number in range(1000))
    backbone = build_backbone(BACKBONE)
    replace_head(backbone, len(classes))
    save_file(backbone.state_dict(), folder / "best.safetensors")
    data = replace(data, classes=classes)
    rng = np.random.default_rng(0)
    labels = np.array([sample.label for sample in data.splits["test"]])
    result = SplitResult(rng.normal(size=(len(labels), 1000)).astype(np.float32), labels)
    # Nothing was trained for an epoch, as when the budget is over at once.
    found = replace(outcome(data, wrong=0), results={"val": result, "test": result}, records=())
    write_report(folder, record(data, found, "full"), data, found)
    markdown = (folder / "report.md").read_text()
    assert "950 better ones are left out" in markdown
    assert len(markdown.splitlines()) < 250
    assert (folder / "report.html").stat().st_size < 2_000_000
    assert not (folder / "curves.png").exists()
