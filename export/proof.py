"""Every candidate against the trained model, on real pictures it was not trained on: parity, accuracy, latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from edgewright.export.candidates import Candidate
from edgewright.export.onnx_graph import INPUT_NAME
from edgewright.export.source import ExportSource
from edgewright.runtime.console import track
from edgewright.runtime.manifest import Parity
from edgewright.runtime.parallel import available_cores
from edgewright.runtime.timing import interleaved_latencies_ms
from edgewright.train.data.loading import Batch, batches
from edgewright.train.evaluation import clean_renderer

__all__ = ["Evidence", "Proof", "collect_evidence", "measure_latency", "prove", "with_candidate"]

_BATCH = 16

FLOAT_AGREEMENT = 0.995
"""Share of pictures on which a float artefact must name the same class as the trained model."""

FLOAT_RELATIVE_DIFF = 2e-3
"""Largest logit difference a float artefact may show, relative to the largest logit; rounding gives about 1e-5."""

UNLABELLED_AGREEMENT = 0.75
"""The same for INT8 where pictures have no labels, so that no accuracy can be measured: a coarse net for collapse."""


@dataclass(frozen=True)
class Evidence:
    """Logits float32 (N, classes) of the trained model and of every candidate, and labels (N), of one split."""

    reference: npt.NDArray[np.float32]
    logits: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Proof:
    """What the evidence says of one candidate. `why_not` is empty if it passed."""

    parity: Parity
    accuracy_split: str | None
    top1: float | None
    drop: float | None
    test_top1: float | None
    flips: int
    why_not: str

    @property
    def passed(self) -> bool:
        """Whether the candidate may go into the bundle."""
        return not self.why_not


def collect_evidence(source: ExportSource, candidates: Sequence[Candidate]) -> dict[str, Evidence]:
    """Run the trained model and all candidates over the same tensors, one batch after the other."""
    loaded = {candidate.name: candidate.load() for candidate in candidates}
    evidence = {}
    try:
        for split, samples in source.checked.items():
            reference: list[npt.NDArray[np.float32]] = []
            logits: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in loaded}
            for batch in track(_batches(source, split), f"proving on {split}", -(-len(samples) // _BATCH)):
                with torch.inference_mode():
                    reference.append(source.network(batch.inputs).numpy())
                for name, backend in loaded.items():
                    logits[name].append(backend.run({INPUT_NAME: batch.inputs.numpy()})[0])
            evidence[split] = Evidence(
                np.concatenate(reference),
                {name: np.concatenate(parts) for name, parts in logits.items()},
                np.asarray([sample.label for sample in samples]),
            )
    finally:
        for backend in loaded.values():
            backend.close()
    return evidence


def with_candidate(evidence: Mapping[str, Evidence], source: ExportSource, candidate: Candidate) -> dict[str, Evidence]:
    """`evidence` with the logits of one more candidate, in place of an earlier one of its name."""
    backend = candidate.load()
    try:
        return {
            split: replace(
                found,
                logits={
                    **found.logits,
                    candidate.name: np.concatenate(
                        [backend.run({INPUT_NAME: batch.inputs.numpy()})[0] for batch in _batches(source, split)]
                    ),
                },
            )
            for split, found in evidence.items()
        }
    finally:
        backend.close()


def _batches(source: ExportSource, split: str) -> Iterator[Batch]:
    samples = source.checked[split]
    renderer = clean_renderer(samples, source.preprocess)
    return batches(renderer, range(len(samples)), view=0, batch=_BATCH, threads=available_cores())


def measure_latency(candidates: Sequence[Candidate], pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Median milliseconds per inference of one picture (1, height, width, 3), candidates taking turns."""
    loaded = {candidate.name: candidate.load() for candidate in candidates}
    try:
        calls = {name: partial(backend.run, {INPUT_NAME: pixels}) for name, backend in loaded.items()}
        samples = interleaved_latencies_ms(calls, seconds=0.8, rounds=4)
    finally:
        for backend in loaded.values():
            backend.close()
    return {name: float(np.median(ms)) for name, ms in samples.items()}


def prove(candidate: Candidate, evidence: Mapping[str, Evidence], *, labelled: bool, max_drop: float) -> Proof:
    """Judge one candidate.

    A float artefact must agree with the trained model on `FLOAT_AGREEMENT` of the pictures and to
    `FLOAT_RELATIVE_DIFF` in its logits. An INT8 artefact may lose `max_drop` points of validation top-1.
    """
    name = candidate.name
    reference = np.concatenate([split.reference for split in evidence.values()])
    ours = np.concatenate([split.logits[name] for split in evidence.values()])
    difference = np.abs(ours - reference)
    same = ours.argmax(1) == reference.argmax(1)
    largest = float(np.abs(reference).max())
    worst = float(difference.max()) if np.isfinite(ours).all() else float("inf")
    parity = Parity(
        images=len(reference),
        top1_agreement=float(same.mean()),
        max_abs_logit_diff=worst if np.isfinite(worst) else 1e30,
        mean_abs_logit_diff=float(difference.mean()) if np.isfinite(worst) else 1e30,
        # Twice the worst seen here leaves room for another CPU's rounding and none for another model.
        golden_tolerance=2 * (worst if np.isfinite(worst) else 0.0) + 1e-3 * max(1.0, largest),
    )
    top1 = drop = test_top1 = None
    split = None
    if labelled:
        split = "val" if "val" in evidence else "test"
        top1 = _top1(evidence[split].logits[name], evidence[split].labels)
        drop = 100 * (_top1(evidence[split].reference, evidence[split].labels) - top1)
        test_top1 = _top1(evidence["test"].logits[name], evidence["test"].labels) if "test" in evidence else None
    why_not = _objection(candidate, parity, drop, max_drop, largest)
    return Proof(parity, split, top1, drop, test_top1, int((~same).sum()), why_not)


def _objection(candidate: Candidate, parity: Parity, drop: float | None, max_drop: float, largest: float) -> str:
    if parity.max_abs_logit_diff >= 1e30:
        return "its logits are not finite"
    if candidate.precision == "fp32":
        if parity.top1_agreement < FLOAT_AGREEMENT:
            return f"it agrees with the trained model on {parity.top1_agreement:.2%} of pictures, expected {FLOAT_AGREEMENT:.1%}"
        if parity.max_abs_logit_diff > FLOAT_RELATIVE_DIFF * max(1.0, largest):
            return (
                f"its logits differ from the trained model's by up to {parity.max_abs_logit_diff:.4g}, "
                f"expected at most {FLOAT_RELATIVE_DIFF * max(1.0, largest):.4g}"
            )
        return ""
    if drop is not None:
        return (
            f"it loses {drop:.2f} points of top-1, at most {max_drop:g} are allowed (--max-drop)"
            if drop > max_drop + 1e-9  # 100 x (0.99 - 0.98) is a little more than 1
            else ""
        )
    if parity.top1_agreement < UNLABELLED_AGREEMENT:
        return (
            f"it agrees with the trained model on only {parity.top1_agreement:.1%} of pictures, "
            f"expected {UNLABELLED_AGREEMENT:.0%}"
        )
    return ""


def _top1(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == labels).mean())
