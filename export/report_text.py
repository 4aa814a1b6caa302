"""The words of the bundle's report, from its JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgewright.train.report.document import Block, Bullets, Code, Document, Inline, Paragraph, Section, Strong, Table

__all__ = ["report_document"]

_WORST = 10
"""Layers of a ranking that are shown; all are in report.json."""


def report_document(document: Mapping[str, Any]) -> Document:
    """Markdown and HTML are made of this."""
    return Document(f"{document['name']}: artefacts", tuple(_sections(document)))


def _sections(document: Mapping[str, Any]) -> Iterator[Section]:
    yield Section("Result", tuple(_result(document)))
    if document["int8_steps"]:
        yield Section("How INT8 was made", tuple(_steps(document)))
    if rows := [row for row in document["artefacts"] if row["float_layers"]]:
        yield Section("INT8 layers executed in float here", tuple(_float_layers(rows)))
    for profile, ranking in document["layer_damage"].items():
        yield Section(f"What quantization damages ({profile})", tuple(_ranking(ranking)))
    for name, classes in document["damage_per_class"].items():
        hurt = {label: row for label, row in classes.items() if row["lost"] or row["gained"]}
        if hurt:
            yield Section(f"What {name} changes", (_damage(hurt),))


def _result(document: Mapping[str, Any]) -> Iterator[Block]:
    trained = ", ".join(f"{split} {top1:.4f}" for split, top1 in document["trained_model"].items() if top1 is not None)
    parts: list[Inline] = [f"{document['backbone']}, {document['input_px']} px. "]
    if trained:
        parts.append(f"Top-1 of the trained model: {trained}. ")
    yield Paragraph((*parts, "Recommended here: ", Strong(document["recommended"]), "."))
    columns = ("artefact", "executed", "size", "top-1", "drop", "test", "agreement", "logit diff", "p50", "")
    yield Table(columns, tuple(_artefact(row, document["recommended"]) for row in document["artefacts"]), left=2)
    if refused := [row for row in document["artefacts"] if not row["passed"]]:
        yield Bullets(tuple((Code(row["name"]), f" is refused: {row['why_not']}.") for row in refused))
    images = document["artefacts"][0]["parity"]["images"]
    yield Paragraph(
        (
            f"Agreement and the largest logit difference are against the trained model in PyTorch, on {images} pictures "
            "that nobody trained on. Drop is in points of top-1. p50 is the engine alone, on the machine that exported, "
            "with all its cores; artefacts for other machines have none, and were computed as those would compute them. "
            "INT8 that is not faster than the fastest float artefact is kept, and not recommended here.",
        )
    )


def _artefact(row: Mapping[str, Any], recommended: str) -> tuple[Inline, ...]:
    mark = "recommended" if row["name"] == recommended else "" if row["passed"] else "refused"
    if row["passed"] and row["faster_than_float"] is False:
        mark = "not faster"
    return (
        Code(row["name"]),
        row["executed"],
        f"{row['size_bytes'] / 1e6:.2f} MB",
        "–" if row["top1"] is None else f"{row['top1']:.4f}",
        "–" if row["drop"] is None else f"{row['drop']:+.2f}",
        "–" if row["test_top1"] is None else f"{row['test_top1']:.4f}",
        f"{row['parity']['top1_agreement']:.2%}",
        f"{row['parity']['max_abs_logit_diff']:.2g}",
        "–" if row["p50_ms"] is None else f"{row['p50_ms']:.2f} ms",
        mark,
    )


def _steps(document: Mapping[str, Any]) -> Iterator[Block]:
    yield Paragraph(
        (
            f"Each way is tried only if the one before loses more than {document['max_drop']:.1f} points"
            f"{'' if document['accuracy_split'] is None else ' on ' + document['accuracy_split']}, or passes but agrees with "
            f"the trained model on less than {document['sure']:.0%} of the pictures. Of those that pass, the one that agrees "
            "most is taken.",
        )
    )
    for name in dict.fromkeys(step["artefact"] for step in document["int8_steps"]):
        yield Paragraph((Code(name),))
        rows = tuple(
            (
                step["way"],
                "–" if step["top1"] is None else f"{step['top1']:.4f}",
                "–" if step["drop"] is None else f"{step['drop']:+.2f}",
                f"{step['agreement']:.2%}",
                "–" if step["p50_ms"] is None else f"{step['p50_ms']:.2f} ms",
                "refused" if step["why_not"] else "passed",
            )
            for step in document["int8_steps"]
            if step["artefact"] == name
        )
        yield Table(("way", "top-1", "drop", "agreement", "p50", ""), rows)


def _float_layers(rows: list[Mapping[str, Any]]) -> Iterator[Block]:
    for row in rows:
        names = row["float_layers"]
        shown = ", ".join(names[:_WORST]) + (f" and {len(names) - _WORST} more" if len(names) > _WORST else "")
        yield Paragraph((Code(row["name"]), f" ({len(names)}): {shown}."))


def _ranking(ranking: list[Mapping[str, Any]]) -> Iterator[Block]:
    yield Paragraph(
        (
            "Each layer quantized alone: how far the softmax moves from the float model's (mean relative entropy, nats). "
            "The worst first.",
        )
    )
    rows = tuple((Code(layer["name"]), layer["op"], f"{layer['divergence']:.2g}") for layer in ranking[:_WORST])
    yield Table(("layer", "operation", "divergence"), rows, left=2)


def _damage(classes: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: tuple[tuple[Inline, ...], ...] = tuple(
        (label, str(row["pictures"]), str(row["lost"]), str(row["gained"]), f"{row['confidence_shift']:+.1f}")
        for label, row in classes.items()
    )
    return Table(("class", "pictures", "lost", "gained", "confidence of the true class, points"), rows)
