"""The trial of every candidate on pictures that nobody trained on, and the climb up the ladder of those that fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from edgewright.export.candidates import Candidate
from edgewright.export.ladder import onnx_candidate
from edgewright.export.proof import Evidence, Proof, collect_evidence, measure_latency, prove, with_candidate
from edgewright.export.quantization.profiles import PROFILES
from edgewright.export.source import ExportSource
from edgewright.runtime.console import notice
from edgewright.runtime.preprocess import preprocess

__all__ = ["Step", "Trial"]

_STEP_S = 0.3
"""How long the latency of a step is measured."""

_CHOICE_S = 1.0
"""How long each of several ways is measured to choose the fastest."""

_KEPT = 256 * 2**20
"""Bytes of pictures that are kept from one step to the next; more are decoded again."""

SURE = 0.95
"""Share of the guard's pictures on which INT8 that passes must agree with the trained model to be taken at once. With
less, accuracy on other pictures may differ by more than a point either way."""

_FURTHER = 3
"""Ways that are tried after one has passed without that."""


@dataclass(frozen=True)
class Step:
    """One way to make an INT8 artefact, and what came of it. `p50_ms` is None for artefacts of other machines."""

    artefact: str
    way: str
    top1: float | None
    drop: float | None
    agreement: float
    p50_ms: float | None
    why_not: str


class Trial:
    """Judges candidates on the validation split; the test split is only looked at when all is decided.

    Attributes:
        guard: The split on which INT8 is accepted or refused.
        steps: Every way that was tried, in order.
        evidence: Logits by split.
        settled: Whether the artefact that is being made has passed once, so that nothing need be trained for it.
    """

    def __init__(self, source: ExportSource, max_drop: float) -> None:
        self.guard = "val" if "val" in source.checked else next(iter(source.checked))
        self.steps: list[Step] = []
        self.evidence: dict[str, Evidence] = {}
        self.settled = False
        # A --max-drop that allows more than that to change means it. Without labels, nobody has asked for accuracy.
        self._sure = min(SURE, 1 - max_drop / 100) if source.labelled else 0.0
        self._source, self._max_drop = source, max_drop

    def begin(self, candidates: Sequence[Candidate]) -> None:
        """Run the trained model and these over the guard's pictures, each decoded once."""
        self.evidence = collect_evidence(self._source, candidates, [self.guard], _KEPT)

    def judge(self, candidate: Candidate) -> Proof:
        """By all evidence there is."""
        return prove(candidate, self.evidence, labelled=self._source.labelled, max_drop=self._max_drop)

    @property
    def target(self) -> float | None:
        """The lowest top-1 on the guard's pictures that is accepted; None without labels."""
        if not self._source.labelled:
            return None
        found = self.evidence[self.guard]
        return float((found.reference.argmax(1) == found.labels).mean()) - self._max_drop / 100

    def score(self, graph: onnx.ModelProto, profile: str) -> float:
        """Top-1 on the guard's pictures of a Q/DQ graph of a profile."""
        candidate = onnx_candidate(graph, PROFILES[profile], "in training")
        evidence = with_candidate(self.evidence, self._source, candidate)
        top1 = prove(candidate, evidence, labelled=True, max_drop=self._max_drop).top1
        assert top1 is not None
        return top1

    def climb(self, first: Candidate, ways: Iterator[Candidate]) -> Candidate:
        """The first that passes and agrees with the trained model on nearly all pictures, beginning with `first`, which
        has been run already.

        One that passes with less is kept while a few more ways are tried, but not trained for: what it gains and loses
        may cancel out on these pictures and not on others. Without any that passes, the last way of all.
        """
        candidate = first
        passed: list[tuple[float, Candidate]] = []
        further = -1
        while True:
            proof = self._record(candidate)
            agreement = proof.parity.top1_agreement
            if proof.passed:
                passed.append((agreement, candidate))
                self.settled = True
            further += bool(passed)
            if (proof.passed and agreement >= self._sure) or further == _FURTHER or candidate.faults:
                break
            why = f"it agrees on {agreement:.1%} of pictures, better is looked for" if proof.passed else proof.why_not
            notice(f"{candidate.name} ({candidate.quantization}): {why}; trying another way")
            following = next(ways, None)
            if following is None:
                break
            candidate = following
            self.evidence = with_candidate(self.evidence, self._source, candidate)
        self.settled = False
        best = max(passed, key=lambda pair: pair[0])[1] if passed else candidate
        if best is not candidate:
            self.evidence = with_candidate(self.evidence, self._source, best)
        return best

    def finish(self, candidates: Sequence[Candidate]) -> None:
        """Run what was decided upon over the pictures of the other splits."""
        others = [split for split in self._source.checked if split != self.guard]
        self.evidence |= collect_evidence(self._source, candidates, others)

    def latency(self, candidates: Sequence[Candidate], seconds: float = 0.8) -> Mapping[str, float]:
        """Median milliseconds by name, of those that run here."""
        picture = self._source.checked[self.guard][0]
        return measure_latency(candidates, preprocess(picture.source, self._source.preprocess)[None], seconds)

    def by_speed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """These, which run here, the fastest first.

        They take turns: measured one after the other, a moment in which something else had the machine would decide.
        """
        ways = {f"{candidate.name} {number}": candidate for number, candidate in enumerate(candidates)}
        found = self.latency([replace(candidate, name=name) for name, candidate in ways.items()], _CHOICE_S)
        return [ways[name] for name in sorted(found, key=found.__getitem__)]

    def _record(self, candidate: Candidate) -> Proof:
        proof = self.judge(candidate)
        self.steps.append(
            Step(
                candidate.name,
                candidate.quantization or "",
                proof.top1,
                proof.drop,
                proof.parity.top1_agreement,
                self.latency([candidate], _STEP_S).get(candidate.name),
                proof.why_not,
            )
        )
        return proof
