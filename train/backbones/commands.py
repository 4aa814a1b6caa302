"""`edgewright backbones` and `edgewright summary`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Optional

import typer

from edgewright.runtime.console import emit_json, notice, print_table, track
from edgewright.runtime.extras import require

__all__ = ["backbones_command", "summary_command"]

_DEPTH = "depth: layers with weights on the longest way through"


def backbones_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Every classification model of torchvision, not only the usual ones.")
    ] = False,
    text: Annotated[
        Optional[str], typer.Option("--filter", help="Names that contain this; timm:TEXT searches timm.")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Measure each on this machine.")] = False,
    imgsz: Annotated[
        Optional[int], typer.Option(min=16, max=1024, help="Input size in pixels. (default: that of the weights)")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List the backbones: size, cost, depth, published accuracy, and on request their latency here."""
    require("train", "torch", "torchvision")
    from edgewright.train.backbones.facts import by_cost, choose_backbones, facts_of

    names = choose_backbones(everything, text)
    rows = by_cost(facts_of(name, imgsz) for name in track(names, "reading the catalogue", len(names)))
    medians: dict[str, float] = {}
    how: dict[str, Any] | None = None
    if latency:
        from edgewright.train.backbones.latency import measure_latencies

        medians, how = measure_latencies(
            [(row.name, row.input_px, row.parameters) for row in rows if row.gmacs is not None]
        )
    if json:
        documents = [asdict(row) | ({"p50_ms": medians.get(row.name)} if latency else {}) for row in rows]
        emit_json({"backbones": documents, "latency": how, "depth": _DEPTH.partition(": ")[2]})
    print_table(
        "backbones" if how is None else f"backbones ({how['engine']}, FP32, batch 1, {how['threads']} threads)",
        ("name", "Mparams", "MB", "GMACs", "depth", "top-1", "top-5", "px", "licence", "weights", "ms here")[
            : 11 if latency else 10
        ],
        [
            (
                row.name,
                f"{row.parameters / 1e6:.2f}",
                _decimals(row.size_mb, 1),
                _decimals(row.gmacs, 3),
                row.depth,
                _decimals(row.top1, 1),
                _decimals(row.top5, 1),
                row.input_px,
                row.licence or "see source",
                ", ".join(row.weights) or None,
                _decimals(medians.get(row.name), 2),
            )[: 11 if latency else 10]
            for row in rows
        ],
    )
    notice(f"{_DEPTH}; top-1 and top-5: ImageNet-1K, percent, as published for --weights imagenet")
    notice(f"next: edgewright train DATA --backbone {rows[0].name}")


def _decimals(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def summary_command(
    model: Annotated[str, typer.Argument(help="A backbone, or the folder of a run.")],
    weights: Annotated[
        Optional[str], typer.Option(help="imagenet, builtin, none, or a path: whose input size and classes to show.")
    ] = None,
    imgsz: Annotated[
        Optional[int], typer.Option(min=16, max=1024, help="Input size in pixels. (default: that of the weights)")
    ] = None,
    freeze: Annotated[
        Optional[int], typer.Option(min=0, help="Stages that are frozen. (default: those of the run, or none)")
    ] = None,
    classes: Annotated[Optional[int], typer.Option(min=2, help="A fresh head for so many classes.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Lay a network out: layers by stage, shapes, parameters, multiplications, frozen or not."""
    require("train", "torch", "torchvision", "safetensors")
    from edgewright.train.backbones.summary import summarise

    found = summarise(model, weights, imgsz, freeze, classes)
    if json:
        emit_json(_document(found))
    rows: list[tuple[object, ...]] = []
    for stage in found.stages:
        title = "head" if stage.head else f"stage {stage.number}" if stage.number is not None else "all layers"
        state = "frozen" if stage.frozen else "trained"
        rows.append((f"{title} ({state})", "", _shape(stage.output), f"{stage.parameters:,}", _millions(stage.macs)))
        rows += [
            (f"  {layer.name}", layer.kind, _shape(layer.output), f"{layer.parameters:,}", _millions(layer.macs))
            for layer in stage.layers
        ]
    print_table(
        f"{found.backbone} ({found.weights}), {found.input_px} px, {found.classes} classes",
        ("layer", "type", "output", "parameters", "MMACs"),
        rows,
    )
    notice(
        f"{found.parameters:,} parameters, {found.trainable:,} trained; {found.gmacs:.3f} GMACs; "
        f"{found.cuts} stages below the head"
    )


def _document(found: Any) -> dict[str, Any]:
    return {
        "backbone": found.backbone,
        "weights": found.weights,
        "classes": found.classes,
        "input_px": found.input_px,
        "parameters": found.parameters,
        "trainable": found.trainable,
        "gmacs": found.gmacs,
        "cuts": found.cuts,
        "stages": [asdict(stage) | {"parameters": stage.parameters, "macs": stage.macs} for stage in found.stages],
    }


def _shape(shape: tuple[int, ...] | None) -> str | None:
    return None if shape is None else " × ".join(map(str, shape))


def _millions(macs: int) -> str | None:
    return f"{macs / 1e6:.2f}" if macs else None
