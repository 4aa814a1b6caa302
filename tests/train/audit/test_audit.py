"""The command: one JSON document whose figures agree with each other, a page, pictures; and every wrong use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from edgewright.runtime.errors import EdgewrightError, UsageError, WeightsError
from edgewright.train.audit.commands import audit_command, parse_eps
from edgewright.train.audit.corruptions import CORRUPTIONS

from .conftest import Runs

app = typer.Typer()
app.command()(audit_command)

FEW = ("--images", "24", "--eps", "16,4", "--steps", "4", "--device", "cpu")


def audited(*arguments: str) -> dict[str, Any]:
    found = CliRunner().invoke(app, [*arguments, *FEW, "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "out"


@pytest.fixture(scope="module")
def both(runs: Runs, out: Path) -> dict[str, Any]:
    return audited(str(runs.head.folder), str(runs.scratch.folder), "digits", "--out", str(out))


@pytest.mark.parametrize("text", ["", "0", "1,256", "2.5", "-1", "a", "1;2", "1,,2"])
def test_bounds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected whole numbers from 1 to 255"):
        parse_eps(text)


def test_bounds_are_put_in_order() -> None:
    assert parse_eps(" 8,1, 4,8") == (1, 4, 8)


@pytest.mark.slow
def test_figures_outside_runs_are_of_the_first_run(both: dict[str, Any], runs: Runs) -> None:
    assert [one["run"] for one in both["runs"]] == [runs.head.record.name, runs.scratch.record.name]
    for key in ("clean", "corruptions", "adversarial"):
        assert both[key] == both["runs"][0][key]


@pytest.mark.slow
def test_shares_are_of_the_pictures_that_were_asked_for(both: dict[str, Any]) -> None:
    assert both["pictures"] == 24
    shares = [one["clean"]["top1"] for one in both["runs"]] + [row["top1"] for row in both["adversarial"]]
    assert all(share * 24 == pytest.approx(round(share * 24)) for share in shares)


@pytest.mark.slow
def test_corruptions_have_five_strengths_and_their_mean(both: dict[str, Any]) -> None:
    assert tuple(both["corruptions"]) == CORRUPTIONS
    for found in both["corruptions"].values():
        assert len(found["top1_by_strength"]) == 5
        assert found["top1"] == pytest.approx(sum(found["top1_by_strength"]) / 5)
    means = [found["top1"] for found in both["corruptions"].values()]
    assert both["mean_corruption_top1"] == pytest.approx(sum(means) / len(means))


@pytest.mark.slow
def test_every_attack_is_tried_with_every_bound(both: dict[str, Any]) -> None:
    for one in both["runs"]:
        tried = [(row["attack"], row["eps"]) for row in one["adversarial"]]
        assert tried == [(attack, eps) for attack in ("noise", "fgsm", "pgd") for eps in (4, 16)]


@pytest.mark.slow
def test_search_finds_more_than_one_step_and_never_less_with_a_larger_bound(both: dict[str, Any]) -> None:
    fooled = {(row["attack"], row["eps"]): row["success"] for row in both["adversarial"]}
    assert fooled["pgd", 16] >= fooled["pgd", 4]
    assert fooled["pgd", 16] >= fooled["fgsm", 16] > fooled["noise", 16]


@pytest.mark.slow
def test_inherited_weakness_is_a_table_over_strategies(both: dict[str, Any]) -> None:
    rows = [(row["strategy"], row["frozen"], row["attack"], row["eps"]) for row in both["transfer"]]
    assert rows == [
        (strategy, frozen, "features", eps)
        for strategy, frozen in (("head", both["runs"][0]["stages"]), ("scratch", 0))
        for eps in (4, 16)
    ]


@pytest.mark.slow
def test_what_was_not_tried_has_a_reason(both: dict[str, Any]) -> None:
    assert {(row["run"], row["attack"]) for row in both["skipped"]} == {(one["run"], "scores") for one in both["runs"]}
    assert all("without class scores" in row["reason"] for row in both["skipped"])


@pytest.mark.slow
def test_head_inherits_its_teachers_weakness(both: dict[str, Any]) -> None:
    noise = next(row for row in both["adversarial"] if (row["attack"], row["eps"]) == ("noise", 16))
    features = next(row for row in both["transfer"] if (row["strategy"], row["eps"]) == ("head", 16))
    assert features["success"] > noise["success"]
    assert features["targeted_success"] > 0


@pytest.mark.slow
def test_report_and_pictures_are_written(both: dict[str, Any], out: Path) -> None:
    assert json.loads((out / "audit.json").read_text()) == both
    page = (out / "audit.md").read_text()
    assert all(sentence in page for sentence in both["reading"])
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"corruptions.png", "attacks.png", "spoilt.png", "adversarial.png"}
    for name in pictures:
        assert f"]({name})" in page
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 200


@pytest.mark.slow
def test_audit_repeats_and_lies_in_the_run(runs: Runs, both: dict[str, Any]) -> None:
    alone = audited(str(runs.head.folder), "digits")
    assert (runs.head.folder / "audit" / "audit.md").is_file()
    for key in ("clean", "corruptions", "adversarial"):
        assert alone[key] == both[key]
    assert alone["transfer"] == both["runs"][0]["transfer"]


@pytest.mark.slow
def test_run_from_scratch_alone_has_no_teacher(runs: Runs, tmp_path: Path) -> None:
    alone = audited(str(runs.scratch.folder), "digits", "--out", str(tmp_path))
    assert alone["transfer"] == []
    assert {row["attack"] for row in alone["skipped"]} == {"scores", "features"}
    assert all("no public teacher" in row["reason"] for row in alone["skipped"])


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No finished run at"):
        CliRunner().invoke(app, [str(tmp_path), "digits"], catch_exceptions=False)


def test_file_in_the_place_of_the_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        CliRunner().invoke(app, ["run", "digits", "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert (tmp_path / "out").read_text() == "mine"


def test_run_without_data_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["run"]).exit_code == 2


@pytest.mark.slow
def test_unknown_data_is_refused_before_anything_is_computed(runs: Runs) -> None:
    with pytest.raises(EdgewrightError, match="No folder at"):
        CliRunner().invoke(app, [str(runs.head.folder), "no-such-data"], catch_exceptions=False)
