"""The bundle's card: what it knows, from what it was made, how well each artefact does, and what it must not be used for."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from edgewright.demo.models import DemoModel
from edgewright.runtime.errors import BundleError

__all__ = ["card"]


def card(model: DemoModel) -> str:
    """The card as HTML; everything that comes from the bundle is escaped."""
    manifest = model.bundle.manifest
    made = manifest.provenance
    facts = [
        ("Labels", ", ".join(manifest.labels)),
        ("Network", f"{made.backbone}, {manifest.preprocess.crop} x {manifest.preprocess.crop} pixels"),
        ("Started from", made.weights),
        ("Trained by", made.strategy or "not told"),
        ("Data", made.data or "not told"),
        ("Calibrated on", f"{made.calibration_images} training pictures" if made.calibration_images else "nothing"),
        ("Made", f"{made.created_at} with edgewright {made.edgewright}, on {made.exported_on}"),
        ("Licence", manifest.licence or "not told: ask whoever made it before you use it"),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    return f"<h2>{html.escape(manifest.name)}</h2><dl class='ew-facts'>{listed}</dl>{_accuracies(model)}{_classes(model)}{_limits()}"


def _accuracies(model: DemoModel) -> str:
    rows = []
    for artefact in model.bundle.manifest.artefacts:
        here = "" if artefact.name in model.artefacts else " (does not run here)"
        rows.append(
            (
                artefact.name + here,
                artefact.precision,
                _share(artefact.top1),
                "–" if artefact.drop is None else f"{artefact.drop:+.2f}",
                _share(artefact.test_top1),
                f"{artefact.size_bytes / 1e6:.1f} MB",
            )
        )
    head = ("artefact", "precision", "right on validation", "points lost", "right on test", "size")
    return _table("Accuracy", head, rows)


def _classes(model: DemoModel) -> str:
    """Per class: pictures, and what each artefact lost and gained against the trained model."""
    try:
        report = json.loads(model.bundle.read("report/report.json"))
        damage: dict[str, dict[str, dict[str, Any]]] = report["damage_per_class"]
        rows = [_class_row(label, damage) for label in model.bundle.manifest.labels] if damage else []
    except (BundleError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""  # a bundle's report is for people, and may be another tool's
    if not rows:
        return ""
    head = ("label", "pictures", *damage)
    return _table("Per label: right answers lost and gained against the trained model, on validation", head, rows)


def _class_row(label: str, damage: dict[str, dict[str, dict[str, Any]]]) -> tuple[str, ...]:
    counted = next((str(found[label]["pictures"]) for found in damage.values() if label in found), "–")
    cells = (
        f"−{found[label]['lost']} +{found[label]['gained']}" if label in found else "–" for found in damage.values()
    )
    return label, counted, *cells


def _limits() -> str:
    return (
        "<h3>Limits</h3><p>It names one of its labels for any picture. Where the page says <em>Not sure</em>, the picture resembles "
        "little of what the model has learned, or the score is low; where it does not, the label can still be wrong as often as "
        "the table says, and more often on pictures that were taken otherwise than those it was trained on. Scores are calibrated "
        "on validation pictures. Do not let it decide alone about people.</p>"
    )


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<h3>{html.escape(title)}</h3><div class="ew-scroll"><table class="ew-table"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
