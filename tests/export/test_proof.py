"""The gates: what passes, what is refused, and with which words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgewright.export.candidates import Candidate
from edgewright.export.onnx_graph import to_onnx
from edgewright.export.proof import Evidence, Proof, collect_evidence, prove, with_candidate
from edgewright.export.source import source_from_run
from edgewright.runtime.manifest import Precision
from edgewright.train.run import Run

CLASSES = 5


def evidence_with(change: npt.NDArray[np.float32]) -> dict[str, Evidence]:
    """A trained model that is always right on 200 pictures, and a candidate whose logits differ by `change`."""
    labels = np.arange(200) % CLASSES
    reference = np.full((200, CLASSES), -1.0, dtype=np.float32)
    reference[np.arange(200), labels] = 4.0
    return {"val": Evidence(reference, {"candidate": reference + change}, labels)}


def wrong_on(count: int) -> npt.NDArray[np.float32]:
    change = np.zeros((200, CLASSES), dtype=np.float32)
    change[np.arange(count), (np.arange(count) + 1) % CLASSES] = 10.0
    return change


def judge(precision: Precision, change: npt.NDArray[np.float32], max_drop: float = 1.0, labelled: bool = True) -> Proof:
    executed = "fp32" if precision == "fp16" else precision
    candidate = Candidate("candidate", "onnxruntime", precision, executed, None, {"candidate.onnx": b""})
    return prove(candidate, evidence_with(change), labelled=labelled, max_drop=max_drop)


def test_equal_float_artefact_passes() -> None:
    proof = judge("fp32", np.full((200, CLASSES), 1e-5, dtype=np.float32))
    assert proof.passed
    assert proof.parity.top1_agreement == 1.0
    assert proof.drop == 0.0


def test_float_artefact_that_names_other_classes_is_refused() -> None:
    assert "agrees with the trained model on 98.50%" in judge("fp32", wrong_on(3)).why_not


def test_float_artefact_with_other_logits_but_the_same_classes_is_refused() -> None:
    assert "logits differ" in judge("fp32", np.full((200, CLASSES), 0.5, dtype=np.float32)).why_not


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_that_are_not_numbers_are_refused(precision: Precision) -> None:
    assert judge(precision, np.full((200, CLASSES), np.nan, dtype=np.float32)).why_not == "its logits are not finite"


def test_int8_may_lose_what_max_drop_allows_and_no_more() -> None:
    assert judge("int8", wrong_on(2)).passed
    refused = judge("int8", wrong_on(4))
    assert refused.drop == pytest.approx(2.0)
    assert "loses 2.00 points" in refused.why_not
    assert judge("int8", wrong_on(4), max_drop=2.0).passed


def test_int8_without_labels_is_judged_by_agreement() -> None:
    assert judge("int8", wrong_on(20), labelled=False).passed
    collapsed = judge("int8", wrong_on(120), labelled=False)
    assert "agrees with the trained model on 40.00% of pictures, expected 75.0%" in collapsed.why_not
    assert collapsed.top1 is None
    assert collapsed.drop is None


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 0.008), ("fp16", 0.08), ("bf16", 0.4)])
def test_float_artefacts_may_round_as_their_precision_does(precision: Precision, allowed: float) -> None:
    assert judge(precision, np.full((200, CLASSES), 0.9 * allowed, dtype=np.float32)).passed
    assert "logits differ" in judge(precision, np.full((200, CLASSES), 1.1 * allowed, dtype=np.float32)).why_not


def test_float_gate_is_not_loosened_by_max_drop() -> None:
    assert not judge("fp32", wrong_on(3), max_drop=100).passed


def test_int8_that_changes_its_mind_too_often_is_refused_whatever_its_accuracy() -> None:
    evidence = evidence_with(wrong_on(30))["val"]
    # The candidate is right on thirty pictures on which the trained model is wrong.
    swapped = Evidence(evidence.logits["candidate"], {"candidate": evidence.reference}, evidence.labels)
    candidate = Candidate("candidate", "onnxruntime", "int8", "int8", "ort-x86", {"candidate.onnx": b""})
    proof = prove(candidate, {"val": swapped}, labelled=True, max_drop=1.0)
    assert proof.drop == pytest.approx(-15.0)
    assert "agrees with the trained model on 85.00% of pictures, expected 90.0%" in proof.why_not


def test_what_its_engine_would_reject_is_refused() -> None:
    candidate = Candidate(
        "candidate", "tensorrt", "int8", "int8", "trt", {"candidate.onnx": b""}, faults=("opset 18, expected 9 to 17",)
    )
    evidence = evidence_with(np.zeros((200, CLASSES), np.float32))
    proof = prove(candidate, evidence, labelled=True, max_drop=1.0)
    assert proof.why_not == "its engine would reject it: opset 18, expected 9 to 17"


def test_golden_tolerance_has_room_for_rounding_and_none_for_another_model() -> None:
    proof = judge("fp32", np.full((200, CLASSES), 1e-4, dtype=np.float32))
    assert 1e-4 < proof.parity.golden_tolerance < 0.01


def test_pictures_that_were_kept_give_the_same_evidence_as_those_decoded_again(digits_run: Run) -> None:
    source = source_from_run(digits_run.folder, None)
    model = to_onnx(source.network, source.preprocess.crop).SerializeToString()
    first, other = (
        Candidate(name, "onnxruntime", "fp32", "fp32", None, {f"{name}.onnx": model}) for name in ("first", "other")
    )
    size = len(source.checked["val"]) * source.preprocess.crop**2 * 3
    found = []
    for keep, kept in ((size - 1, False), (size, True)):
        evidence = collect_evidence(source, [first], ["val"], keep)
        assert (evidence["val"].pixels is not None) == kept
        found.append(with_candidate(evidence, source, other)["val"].logits)
    assert set(found[0]) == {"first", "other"}
    for logits in (*found[0].values(), *found[1].values()):
        np.testing.assert_array_equal(logits, found[0]["first"])
