"""What is chosen, and why not the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.benchmarks.reports import Interval
from edgewright.benchmarks.tuning import Candidate, Limits, choose, is_slower

UNLIMITED = Limits(100)


def candidate(
    name: str, p50_ms: float | None, half_ms: float = 0.1, top1: float | None = 0.9, **other: Any
) -> Candidate:
    interval = None if p50_ms is None else Interval(p50_ms - half_ms, p50_ms + half_ms)
    values: dict[str, Any] = {
        "artefact": name,
        "backend": "onnxruntime",
        "precision": "fp32",
        "threads": 2,
        "p50_ms": p50_ms,
        "interval": interval,
        "top1": top1,
        "drop": 0.0,
        "size_bytes": 1,
        "memory_peak_mb": None,
        "rejected": "",
    }
    return Candidate(**(values | other))


def chosen(*candidates: Candidate, limits: Limits = UNLIMITED) -> str | None:
    found = choose(candidates, limits).chosen
    return None if found is None else found.artefact


def test_fastest_wins() -> None:
    assert chosen(candidate("slow", 5), candidate("fast", 3), candidate("middle", 4)) == "fast"


def test_what_is_not_slower_beyond_noise_and_loses_less_wins() -> None:
    assert chosen(candidate("fast", 3, 0.5, drop=0.9), candidate("good", 3.3, 0.5, drop=0.1)) == "good"
    assert chosen(candidate("fast", 3, 0.1, drop=0.9), candidate("good", 3.3, 0.1, drop=0.1)) == "fast"


def test_int8_has_to_be_faster() -> None:
    """To be right more often than the trained model is chance, and no merit."""
    close = candidate("int8", 3.0, 0.5, precision="int8", drop=-2.0), candidate("fp32", 3.3, 0.5)
    assert chosen(*close) == "fp32"
    assert choose(close, UNLIMITED).candidates[0].rejected == "INT8, and not faster than the one chosen beyond noise"
    assert chosen(candidate("int8", 3.0, 0.1, precision="int8", drop=0.9), candidate("fp32", 3.3, 0.1)) == "int8"


def test_of_equals_fewest_threads_then_the_smallest_wins() -> None:
    assert chosen(candidate("two", 3), candidate("one", 3, threads=1)) == "one"
    assert chosen(candidate("large", 3, size_bytes=9), candidate("small", 3, size_bytes=2)) == "small"


def test_what_broke_a_limit_is_not_chosen_however_fast() -> None:
    tuning = choose([candidate("lossy", None, rejected="loses 3 points"), candidate("slow", 9)], UNLIMITED)
    assert tuning.chosen is not None
    assert tuning.chosen.artefact == "slow"
    assert [each.rejected for each in tuning.candidates] == ["loses 3 points", ""]


def test_within_a_target_the_most_accurate_wins() -> None:
    limits = Limits(100, target_ms=5)
    fast, good, best = candidate("fast", 2, drop=3.0), candidate("good", 4, drop=1.0), candidate("best", 6)
    tuning = choose([fast, good, best], limits)
    reasons = {each.artefact: each.rejected for each in tuning.candidates}
    assert reasons == {
        "fast": "fast enough, but loses more accuracy",
        "good": "",
        "best": "takes 6.00 ms (up to 6.10); 5 are allowed",
    }


def test_target_must_be_kept_beyond_noise() -> None:
    assert chosen(candidate("close", 4.9, 0.3), limits=Limits(100, target_ms=5)) is None


def test_reason_of_the_slower_one_says_how_much() -> None:
    tuning = choose([candidate("fast", 2), candidate("slow", 5)], UNLIMITED)
    assert tuning.candidates[1].rejected == "2.50 times as slow as the one chosen"


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.sampled_from("abcdef"),
        st.one_of(st.none(), st.floats(0.1, 100)),
        st.floats(0, 10),
        drop=st.floats(0, 5),
        precision=st.sampled_from(["fp32", "int8"]),
        rejected=st.sampled_from(["", "", "why"]),
    ).map(lambda one: candidate(one.artefact, None, rejected="not measured") if one.p50_ms is None else one),
    max_size=8,
)


@given(CANDIDATES, st.one_of(st.none(), st.floats(0.1, 100)))
def test_nothing_admissible_is_faster_beyond_noise(candidates: list[Candidate], target_ms: float | None) -> None:
    limits = Limits(100, target_ms=target_ms)
    tuning = choose(candidates, limits)
    admissible = [each for each in candidates if not each.rejected]
    assert sum(not each.rejected for each in tuning.candidates) == (tuning.chosen is not None)
    if target_ms is not None:
        within = [each for each in admissible if each.interval is not None and each.interval.high_ms <= target_ms]
        assert (tuning.chosen is None) == (not within)
        if tuning.chosen is not None:
            assert tuning.chosen.drop == min(each.drop or 0 for each in within)
        return
    assert (tuning.chosen is None) == (not admissible)
    if tuning.chosen is not None:
        quickest = min(admissible, key=lambda each: each.p50_ms or 0)
        assert not is_slower(tuning.chosen, quickest)


def test_nothing_to_choose_from_chooses_nothing() -> None:
    assert choose([], UNLIMITED).chosen is None


@pytest.mark.parametrize(("one", "other", "slower"), [(3.0, 2.5, True), (2.55, 2.5, False), (2.5, 3.0, False)])
def test_slower_means_beyond_the_interval_of_the_difference(one: float, other: float, slower: bool) -> None:
    assert is_slower(candidate("one", one), candidate("other", other)) is slower
