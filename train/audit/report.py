"""An audit in words, as a page and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgewright.train.audit.corruptions import STRENGTHS
from edgewright.train.audit.results import Audit, RunAudit

__all__ = ["attack_rows", "audit_document", "audit_page", "chosen_eps", "corruption_mean", "reading"]

_TYPICAL_EPS = 4
"""Bound, of 255, that sentences speak of: below what people notice, above what a strong attack needs."""

_KNOWS = {
    "noise": "nothing",
    "fgsm": "the run",
    "pgd": "the run",
    "scores": "the teacher's answers",
    "features": "the teacher's features",
}


def chosen_eps(audit: Audit) -> int:
    """The bound that sentences and example pictures speak of: the largest up to 4 of 255, else the smallest."""
    return max((eps for eps in audit.plan.eps if eps <= _TYPICAL_EPS), default=audit.plan.eps[0])


def corruption_mean(one: RunAudit) -> float:
    """Top-1 over all corruptions and strengths."""
    values = [value for row in one.corruptions.values() for value in row]
    return sum(values) / len(values)


def reading(audit: Audit) -> list[str]:
    """What the figures say, a few sentences for each run."""
    sentences = []
    eps = chosen_eps(audit)
    for one in audit.runs:
        name = one.subject.name
        worst = min(one.corruptions, key=lambda corruption: sum(one.corruptions[corruption]))
        sentences.append(
            f"{name} gets {one.top1:.0%} of the pictures right, {corruption_mean(one):.0%} of the spoilt ones; worst is "
            f"{worst} with {sum(one.corruptions[worst]) / len(STRENGTHS):.0%}."
        )
        if one.top1 < 2 / len(audit.classes):
            sentences.append(f"{name} is hardly better than chance; what attacks do to it says nothing.")
            continue
        fooled = {(row.attack, row.eps): row.success for row in one.attacks}
        inherited = [(attack, fooled.get((attack, eps))) for attack in ("scores", "features")]
        known = [(attack, success) for attack, success in inherited if success is not None]
        if known and one.transfer:
            attack, success = max(known, key=lambda found: found[1])
            sentences.append(
                f"Examples made on the public {one.transfer[0].teacher} alone, by its {attack}, fool {success:.0%} of what "
                f"{name} gets right ({_depth(one)}; changes of at most {eps} of 255)."
            )
        pgd, noise = fooled[("pgd", eps)], fooled[("noise", eps)]
        if pgd is not None and noise is not None:
            sentences.append(f"Who has {name} itself fools {pgd:.0%}; noise of the same size {noise:.0%}.")
    return sentences


def _depth(one: RunAudit) -> str:
    return f"{one.subject.run.record.strategy}, {one.subject.frozen} of {one.subject.stages} stages frozen"


def attack_rows(audit: Audit) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
    """The table over runs: header and rows. Cells are shares of the rightly named pictures that became wrong."""
    header = ("run", "frozen", "attack", "made with", *(f"{eps}/255" for eps in audit.plan.eps))
    rows: list[tuple[str | None, ...]] = []
    for one in audit.runs:
        found = one.attacks
        frozen = f"{one.subject.frozen}/{one.subject.stages}"
        for attack in dict.fromkeys(row.attack for row in found):
            cells = [
                next(row.success for row in found if (row.attack, row.eps) == (attack, eps)) for eps in audit.plan.eps
            ]
            rows.append((one.subject.name, frozen, attack, _KNOWS[attack], *(_percent(cell) for cell in cells)))
        targeted = {row.eps: row.targeted_success for row in one.transfer if row.attack == "features"}
        if targeted:
            cells = [targeted[eps] for eps in audit.plan.eps]
            rows.append(
                (one.subject.name, frozen, "… as intended", _KNOWS["features"], *(_percent(cell) for cell in cells))
            )
        rows += [
            (one.subject.name, frozen, attack, "not tried", *[None] * len(audit.plan.eps)) for attack, _ in one.skipped
        ]
    return header, rows


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def _run_document(one: RunAudit) -> dict[str, Any]:
    record = one.subject.run.record
    return {
        "run": one.subject.name,
        "folder": str(one.subject.run.folder),
        "backbone": record.backbone,
        "strategy": record.strategy,
        "frozen": one.subject.frozen,
        "stages": one.subject.stages,
        "clean": {"top1": one.top1},
        "mean_corruption_top1": corruption_mean(one),
        "corruptions": {
            name: {"top1": sum(values) / len(values), "top1_by_strength": list(values)}
            for name, values in one.corruptions.items()
        },
        "adversarial": [asdict(row) for row in one.adversarial],
        "transfer": [asdict(row) for row in one.transfer],
        "skipped": [{"attack": attack, "reason": reason} for attack, reason in one.skipped],
    }


def audit_document(audit: Audit) -> dict[str, Any]:
    """The `--json` document. Keys outside `runs` are of the first run, but `transfer` and `skipped` are of all."""
    runs = [_run_document(one) for one in audit.runs]
    return {
        **runs[0],
        "transfer": [row for run in runs for row in run["transfer"]],
        "skipped": [{"run": run["run"], **row} for run in runs for row in run["skipped"]],
        "runs": runs,
        "data": audit.plan.data,
        "pictures": audit.pictures,
        "eps": list(audit.plan.eps),
        "steps": audit.plan.steps,
        "seed": audit.plan.seed,
        "reading": reading(audit),
        "seconds": audit.seconds,
    }


def audit_page(audit: Audit, pictures: Sequence[tuple[str, str]]) -> str:
    """`audit.md`; `pictures` are (title, file) in the same folder."""
    plan = audit.plan
    header, rows = attack_rows(audit)
    # Half the width of a 95 % interval where it is widest, at one half.
    margin = 0.98 / math.sqrt(audit.pictures)
    lines = [
        "# Audit",
        "",
        *(f"- {sentence}" for sentence in reading(audit)),
        "",
        f"{audit.pictures} pictures of `{plan.data}` that no run was trained on, seed {plan.seed}, {plan.steps} steps per "
        f"search, {audit.seconds:.0f} s. A share of so many pictures is good to ± {margin:.0%}.",
        "",
        "## Spoilt pictures",
        "",
        "Top-1 per strength. Noise, blur, JPEG, brightness, contrast and pixelate with the strengths of Hendrycks and "
        "Dietterich (ICLR 2019), which depend on the input size; rotations of 5 to 40 degrees; grey squares over 5 to 40 % "
        "of the area.",
        "",
        _row(["run", "corruption", *(str(strength) for strength in STRENGTHS), "mean"]),
        _row(["---", "---", *["---:"] * (len(STRENGTHS) + 1)]),
    ]
    for one in audit.runs:
        lines.append(_row([one.subject.name, "none", *["–"] * len(STRENGTHS), f"{one.top1:.3f}"]))
        for name, values in one.corruptions.items():
            mean = sum(values) / len(values)
            lines.append(_row([one.subject.name, name, *(f"{value:.3f}" for value in values), f"{mean:.3f}"]))
        lines.append(_row([one.subject.name, "all", *["–"] * len(STRENGTHS), f"{corruption_mean(one):.3f}"]))
    lines += [
        "",
        "## Adversarial examples",
        "",
        "Share that becomes wrong, of the pictures that the run names rightly, when no pixel changes by more than the bound "
        "(L-infinity). Every example is a uint8 picture, as a device would be shown it. `fgsm` (Goodfellow et al. 2015) and "
        "`pgd` (Madry et al. 2018) are made with the run itself; `scores` and `features` with the public teacher alone, "
        "`features` as in Wang et al. (USENIX Security 2018): a picture is given the features of one of another class where "
        "the frozen stages end (where none are frozen, at the head's input). `… as intended`: the share that is then taken "
        "for that class, where both pictures are named rightly.",
        "",
        _row(header),
        _row(["---"] * 4 + ["---:"] * len(plan.eps)),
        *(_row(["–" if cell is None else cell for cell in row]) for row in rows),
    ]
    for one in audit.runs:
        lines += [f"\n{one.subject.name}, `{attack}` not tried: {reason}." for attack, reason in one.skipped]
    for title, file in pictures:
        lines += ["", f"## {title}", "", f"![{title}]({file})"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
