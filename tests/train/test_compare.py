"""All strategies on the same data, and an answer to whether transfer pays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from edgewright.runtime.errors import UsageError
from edgewright.train.compare import Comparison, compare
from edgewright.train.config import TrainConfig
from edgewright.train.run import Run, read_run


def config(folder: Path, **changes: object) -> TrainConfig:
    usual = {"data": "digits", "backbone": "mobilenet_v3_small", "weights": "builtin", "imgsz": 32, "per_class": 5}
    usual |= {"val_fraction": 0.08, "test_fraction": 0.08}
    return TrainConfig(**(usual | {"epochs": 1, "batch": 16, "views": 1, "out": str(folder)} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(config(tmp_path_factory.mktemp("compare") / "all", freeze=4, strategy="partial"))


@pytest.mark.slow
def test_every_strategy_is_a_finished_run(compared: Comparison) -> None:
    found = {path.name: read_run(path).record for path in compared.folder.iterdir() if path.is_dir()}
    assert {name: record.strategy for name, record in found.items()} == {
        name: name for name in ("head", "partial", "full", "scratch")
    }
    assert found["scratch"].weights != found["head"].weights
    assert found["partial"].trained_stages == 2
    assert len({json.dumps(record.counts) for record in found.values()}) == 1


@pytest.mark.slow
def test_comparison_is_written_and_is_what_the_runs_say(compared: Comparison) -> None:
    document = json.loads((compared.folder / "compare.json").read_text())
    assert document["verdict"] == compared.verdict
    for row in document["strategies"]:
        record = read_run(Path(row["run"])).record
        assert (row["val_top1"], row["test_top1"], row["seconds"]) == (
            record.val_top1,
            record.test_top1,
            record.seconds,
        )
        times = [seconds for seconds, _ in row["points"]]
        assert times == sorted(times)
        assert 0 < times[-1] <= record.seconds + 0.1
        assert max(top1 for _, top1 in row["points"]) == pytest.approx(record.val_top1, abs=1e-6)
    markdown = (compared.folder / "compare.md").read_text()
    assert all(f"| {run.record.strategy} | {run.record.val_top1:.4f} |" in markdown for run in compared.runs)
    with Image.open(compared.folder / "compare.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.slow
def test_few_pictures_are_better_learnt_with_pretrained_weights(compared: Comparison) -> None:
    assert compared.best.record.strategy != "scratch"
    assert compared.verdict.startswith("Transfer pays: ")


@pytest.mark.slow
def test_finished_comparison_is_not_overwritten_unless_asked(compared: Comparison) -> None:
    options = config(compared.folder, freeze=4, strategy="partial")
    with pytest.raises(UsageError, match=r"exists\. Choose another --out"):
        compare(options)
    again = compare(options, resume=True)
    assert [run.record for run in again.runs] == [run.record for run in compared.runs]


def test_comparison_needs_weights_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--compare measures what pretrained weights are worth"):
        compare(config(tmp_path / "all", weights="none"))
    assert not (tmp_path / "all").exists()


def test_comparison_in_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--compare compares times of one process"):
        compare(config(tmp_path / "all"))
    assert not (tmp_path / "all").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "scratch", "expected"),
    [
        (0.9, 0.5, "Transfer pays: 'head' 0.9000, 'scratch' 0.5000"),
        (0.5, 0.9, "Transfer does not pay here, training from scratch is better"),
        (0.90, 0.91, "Transfer does not pay here, it is no better than training from scratch beyond noise"),
        (0.91, 0.90, "Transfer does not pay here, it is no better"),
    ],
)
def test_verdict_is_about_more_than_noise(compared: Comparison, head: float, scratch: float, expected: str) -> None:
    from edgewright.train.compare import _verdict

    values = {"head": head, "partial": 0.1, "full": 0.1, "scratch": scratch}
    runs = [
        Run(run.folder, run.record.model_copy(update={"val_top1": values[run.record.strategy]}))
        for run in compared.runs
    ]
    verdict = _verdict(runs)
    assert verdict.startswith(expected)
    assert "on 145 validation pictures" in verdict
