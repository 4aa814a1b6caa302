"""Every candidate against the trained model, on real pictures it was not trained on: parity, accuracy, latency."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
from edgewright.runtime.preprocess import in_layout
from edgewright.runtime.scores import energy, top_scores
from edgewright.runtime.timing import interleaved_latencies_ms
from edgewright.train.data.loading import batches
from edgewright.train.evaluation import clean_renderer

__all__ = ["Evidence", "Proof", "collect_evidence", "measure_latency", "prove", "with_candidate"]

_BATCH = 16

AGREEMENT = {"fp32": 0.995, "fp16": 0.99, "bf16": 0.97, "int8": 0.9}
"""Share of pictures on which an artefact must name the same class as the trained model, by what is executed."""

RELATIVE_DIFF = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 1e-1}
"""Largest logit difference a float artefact may show, relative to the largest logit. FP32 gives about 1e-5, FP16 and
bf16 keep 11 and 8 bits, of which rounding from layer to layer costs some."""

KNOWN = 0.95
"""Share of validation pictures that must count as known."""

UNLABELLED_AGREEMENT = 0.75
"""For INT8 where pictures have no labels, so that no accuracy can be measured: a coarse net for collapse."""


@dataclass(frozen=True)
class Evidence:
    """What the trained model and every candidate answer to one split.

    Attributes:
        reference: Logits float32 (N, classes) of the trained model.
        logits: The same of every candidate, by name.
        labels: Of the pictures (N).
        pixels: The pictures in batches, uint8 (batch, height, width, 3); None where they are too many to keep.
    """

    reference: npt.NDArray[np.float32]
    logits: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    pixels: Sequence[npt.NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class Proof:
    """What the evidence says of one candidate. `why_not` is empty if it passed; `known_energy` as in the manifest."""

    parity: Parity
    accuracy_split: str | None
    top1: float | None
    drop: float | None
    test_top1: float | None
    flips: int
    known_energy: float | None
    why_not: str

    @property
    def passed(self) -> bool:
        """Whether the candidate may go into the bundle."""
        return not self.why_not


def collect_evidence(
    source: ExportSource, candidates: Sequence[Candidate], splits: Collection[str], keep: int = 0
) -> dict[str, Evidence]:
    """Run the trained model and all candidates over the same tensors of `splits`, one batch after the other.

    The pictures of a split are kept for :func:`with_candidate` if they take at most `keep` bytes.
    """
    loaded = {candidate.name: candidate.load() for candidate in candidates}
    layouts = {candidate.name: candidate.layout for candidate in candidates}
    evidence = {}
    try:
        for split in splits:
            samples = source.checked[split]
            reference: list[npt.NDArray[np.float32]] = []
            logits: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in loaded}
            keeping = len(samples) * source.preprocess.crop**2 * 3 <= keep
            kept: list[npt.NDArray[np.uint8]] = []
            for pixels in track(_batches(source, split), f"proving on {split}", -(-len(samples) // _BATCH)):
                with torch.inference_mode():
                    reference.append(source.network(torch.from_numpy(pixels)).numpy())
                for name, backend in loaded.items():
                    logits[name].append(backend.run({INPUT_NAME: in_layout(pixels, layouts[name])})[0])
                if keeping:
                    kept.append(pixels)
            evidence[split] = Evidence(
                np.concatenate(reference),
                {name: np.concatenate(parts) for name, parts in logits.items()},
                np.asarray([sample.label for sample in samples]),
                kept if keeping else None,
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
                        [
                            backend.run({INPUT_NAME: in_layout(pixels, candidate.layout)})[0]
                            for pixels in found.pixels or _batches(source, split)
                        ]
                    ),
                },
            )
            for split, found in evidence.items()
        }
    finally:
        backend.close()


def _batches(source: ExportSource, split: str) -> Iterator[npt.NDArray[np.uint8]]:
    samples = source.checked[split]
    renderer = clean_renderer(samples, source.preprocess)
    for batch in batches(renderer, range(len(samples)), view=0, batch=_BATCH, threads=available_cores()):
        yield batch.inputs.numpy()


def measure_latency(
    candidates: Sequence[Candidate], pixels: npt.NDArray[np.uint8], seconds: float = 0.8, threads: int | None = None
) -> dict[str, float]:
    """Median milliseconds per inference of one picture (1, height, width, 3), candidates taking turns.

    Those that are made for other machines are left out.
    """
    loaded = {candidate.name: candidate.load(threads) for candidate in candidates if candidate.runs_here}
    layouts = {candidate.name: candidate.layout for candidate in candidates}
    try:
        calls = {
            name: partial(backend.run, {INPUT_NAME: in_layout(pixels, layouts[name])})
            for name, backend in loaded.items()
        }
        samples = interleaved_latencies_ms(calls, seconds=seconds, rounds=4)
    finally:
        for backend in loaded.values():
            backend.close()
    return {name: float(np.median(ms)) for name, ms in samples.items()}


def prove(candidate: Candidate, evidence: Mapping[str, Evidence], *, labelled: bool, max_drop: float) -> Proof:
    """Judge one candidate.

    It must name the same class as the trained model on `AGREEMENT` of the pictures. A float artefact must stay within
    `RELATIVE_DIFF` of its logits, too; any but FP32 may lose `max_drop` points of validation top-1.
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
    known = None
    if "val" in evidence and np.isfinite(worst):
        rows = evidence["val"].logits[name]
        energies = [energy(float(row[index]), score) for row in rows for index, score in top_scores(row, 1)]
        known = float(np.quantile(energies, 1 - KNOWN))
    return Proof(parity, split, top1, drop, test_top1, int((~same).sum()), known, why_not)


def _objection(candidate: Candidate, parity: Parity, drop: float | None, max_drop: float, largest: float) -> str:
    if parity.max_abs_logit_diff >= 1e30:
        return "its logits are not finite"
    if candidate.faults:
        return f"its engine would reject it: {candidate.faults[0]}"
    # Weights stored in FP16 are rounded, whatever computes with them.
    kind = candidate.precision
    if kind != "fp32" and drop is not None and drop > max_drop + 1e-9:  # 100 x (0.99 - 0.98) is a little more than 1
        return f"it loses {drop:.2f} points of top-1, at most {max_drop:g} are allowed (--max-drop)"
    expected = UNLABELLED_AGREEMENT if kind == "int8" and drop is None else AGREEMENT[kind]
    if kind == "int8" and drop is not None:
        # A --max-drop that allows more than that to change means it.
        expected = min(expected, 1 - max_drop / 100)
    if parity.top1_agreement < expected:
        return f"it agrees with the trained model on {parity.top1_agreement:.2%} of pictures, expected {expected:.1%}"
    allowed = RELATIVE_DIFF[kind] * max(1.0, largest) if kind in RELATIVE_DIFF else float("inf")
    if parity.max_abs_logit_diff > allowed:
        return (
            f"its logits differ from the trained model's by up to {parity.max_abs_logit_diff:.4g}, "
            f"expected at most {allowed:.4g}"
        )
    return ""


def _top1(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == labels).mean())
