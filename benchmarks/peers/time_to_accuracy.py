"""Test top-1 within a time: `--strategy auto`, training from scratch, and fastai's `fine_tune`.

    python -m edgewright.benchmarks.peers.time_to_accuracy [--data DATA] [--weights PATH] [--budgets 5m,15m] [--json]

One after the other, each in a process of its own. Scratch shows what the pretrained weights are worth. fastai is measured if
--fastai-python names an interpreter that has it:

    uv venv fastai-env && VIRTUAL_ENV=fastai-env uv pip install fastai
    python -m edgewright.benchmarks.peers.time_to_accuracy --fastai-python fastai-env/bin/python
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from pydantic import TypeAdapter, ValidationError

from edgewright.benchmarks.peers.sides import Side, default_data, default_weights, machine, ours, run_script
from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import UsageError
from edgewright.train.config import Duration

__all__ = ["measure_budget", "parse_budgets"]


def parse_budgets(text: str) -> list[float]:
    """Seconds of durations such as '90s,5m,1h'.

    Raises:
        UsageError: one is none.
    """
    adapter: TypeAdapter[float] = TypeAdapter(Duration)
    try:
        return [adapter.validate_python(part) for part in text.split(",")]
    except ValidationError as error:
        raise UsageError(f"--budgets '{text}': expected durations with commas between, such as 5m,15m.") from error


def measure_budget(
    budget_s: float,
    data: str,
    weights: str,
    *,
    backbone: str,
    imgsz: int,
    seed: int,
    scratch: bool,
    fastai_python: Path | None,
) -> dict[str, Any]:
    """What each way reaches: `auto`, and `scratch` and `fastai` where asked for, with `seconds` and `top1` (test)."""
    common: dict[str, Any] = {"data": data, "backbone": backbone, "imgsz": imgsz, "seed": seed}
    ways = {"auto": ours(f"auto, {budget_s:.0f} s", strategy="auto", weights=weights, budget=budget_s, **common)}
    if scratch:
        ways["scratch"] = ours(f"scratch, {budget_s:.0f} s", strategy="scratch", budget=budget_s, **common)
    if fastai_python is not None:
        script = str(Path(__file__).with_name("fastai_fine_tune.py"))
        request = common | {"weights": weights, "budget_s": budget_s, "batch": 64}
        ways["fastai"] = Side(f"fastai, {budget_s:.0f} s", [str(fastai_python), "-W", "ignore", script], request)
    document: dict[str, Any] = {"budget_s": budget_s}
    for name, side in ways.items():
        found = side.run()
        document[name] = {key: found[key] for key in ("seconds", "top1", "val_top1", "epochs", "note") if key in found}
        notice(f"{name}, {budget_s:.0f} s: test top-1 {found['top1']:.4f} after {found['seconds']:.0f} s")
    return document


def _check_fastai(python: Path) -> None:
    """Before the first budget, not after an hour.

    Raises:
        UsageError: no interpreter, or one without fastai.
    """
    try:
        subprocess.run([str(python), "-W", "ignore", "-c", "import fastai.vision.all"], check=True, capture_output=True)  # noqa: S603 - the interpreter that the user names
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"--fastai-python '{python}' cannot import fastai. Expected an interpreter of an environment with it: "
            "uv venv fastai-env && VIRTUAL_ENV=fastai-env uv pip install fastai"
        ) from error


def main(
    data: Annotated[
        Optional[Path], typer.Option(help="A folder with train, val and test. (default: ../shared/data/clothing)")
    ] = None,
    weights: Annotated[
        Optional[str], typer.Option(help="A .pth file. (default: ../shared/weights/BACKBONE-imagenet.pth)")
    ] = None,
    backbone: Annotated[str, typer.Option(help="A torchvision classification model.")] = "mobilenet_v2",
    budgets: Annotated[str, typer.Option(help="Durations with commas between.")] = "5m,15m",
    imgsz: Annotated[int, typer.Option(min=16, help="Input size, in pixels.")] = 224,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    scratch: Annotated[bool, typer.Option(help="Also train from random weights.")] = True,
    fastai_python: Annotated[
        Optional[Path], typer.Option(help="Also fastai, with this interpreter of an environment that has it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure each budget."""
    folder, file, durations = default_data(data), default_weights(weights, backbone), parse_budgets(budgets)
    if fastai_python is not None:
        _check_fastai(fastai_python)
    facts = machine()
    rows = [
        measure_budget(
            budget_s,
            folder,
            file,
            backbone=backbone,
            imgsz=imgsz,
            seed=seed,
            scratch=scratch,
            fastai_python=fastai_python,
        )
        for budget_s in durations
    ]
    if json:
        emit_json({"backbone": backbone, "imgsz": imgsz, "budgets": rows, "device": facts})
    print_table(
        f"{backbone}, test top-1 within a time",
        ("", "budget s", "seconds", "test top-1"),
        [
            (way, f"{row['budget_s']:.0f}", f"{row[way]['seconds']:.0f}", f"{row[way]['top1']:.4f}")
            for row in rows
            for way in ("auto", "scratch", "fastai")
            if way in row
        ],
    )


if __name__ == "__main__":
    run_script(main)
