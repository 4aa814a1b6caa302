"""What an export found out about its artefacts, and which of them it recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.export.candidates import Candidate
from edgewright.export.executed import executed_by_onnxruntime, executed_by_openvino, float_layers
from edgewright.export.proof import Evidence, Proof
from edgewright.export.quantization.sensitivity import LayerDamage
from edgewright.export.trial import Step, Trial

__all__ = ["Finding", "Findings", "gather"]

FASTER = 0.97
"""INT8 that takes more than this share of the fastest float artefact's time is not faster: medians vary by as much."""


@dataclass(frozen=True)
class Finding:
    """All about one artefact.

    Attributes:
        p50_ms: Median latency here, None for artefacts of other machines.
        faster: For INT8 that runs here: whether it is faster than the fastest float artefact that passed.
        float_layers: For INT8 that runs here: the layers that the engine executes in float.
    """

    candidate: Candidate
    proof: Proof
    p50_ms: float | None
    faster: bool | None
    float_layers: tuple[str, ...] | None


@dataclass(frozen=True)
class Findings:
    """Of all artefacts, refused ones included.

    Attributes:
        steps: Every way that was tried for INT8.
        evidence: Logits by split.
        guard: The split on which INT8 was accepted or refused.
        fastest_float_ms: Median latency here of the fastest float artefact that passed; None if there is none.
        rankings: Layers by the damage that quantizing them does, by profile, where it came to that.
    """

    artefacts: tuple[Finding, ...]
    steps: tuple[Step, ...]
    evidence: Mapping[str, Evidence]
    guard: str
    fastest_float_ms: float | None
    rankings: Mapping[str, Sequence[LayerDamage]]

    @property
    def ranked(self) -> list[Finding]:
        """Those that passed, in order of preference: the fastest here first.

        INT8 that is not faster than float comes after it: it gains nothing here and is less exact. What is made for
        other machines comes last.
        """

        def key(finding: Finding) -> tuple[bool, float, bool]:
            ms, slow = finding.p50_ms or 0.0, finding.faster is False
            return finding.p50_ms is None, max(ms, self.fastest_float_ms or 0.0) if slow else ms, slow

        return sorted((finding for finding in self.artefacts if finding.proof.passed), key=key)


def gather(candidates: Sequence[Candidate], trial: Trial, rankings: Mapping[str, Sequence[LayerDamage]]) -> Findings:
    """Judge by all evidence, measure latency, and look into what the engines execute."""
    proofs = {candidate.name: trial.judge(candidate) for candidate in candidates}
    latency = trial.latency(candidates)
    fastest = min(
        (
            latency[candidate.name]
            for candidate in candidates
            if candidate.precision != "int8" and candidate.name in latency and proofs[candidate.name].passed
        ),
        default=None,
    )
    found = []
    for candidate in candidates:
        p50_ms = latency.get(candidate.name)
        quantized_here = candidate.precision == "int8" and p50_ms is not None
        faster = p50_ms <= FASTER * fastest if quantized_here and p50_ms is not None and fastest is not None else None
        found.append(
            Finding(
                candidate,
                proofs[candidate.name],
                p50_ms,
                faster,
                tuple(_executed_in_float(candidate)) if quantized_here else None,
            )
        )
    return Findings(tuple(found), tuple(trial.steps), trial.evidence, trial.guard, fastest, rankings)


def _executed_in_float(candidate: Candidate) -> list[str]:
    model, *weights = candidate.files.values()
    if candidate.backend == "openvino":
        return float_layers(executed_by_openvino(model, weights[0], "f32"))
    return float_layers(executed_by_onnxruntime(model))
