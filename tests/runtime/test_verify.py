"""Golden vectors: whatever differs from training on this machine is found, and blamed on the right part."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.commands import runnable_artefacts
from edgewright.runtime.errors import BundleError, EdgewrightError, PrecisionError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.verify import TENSOR_TOLERANCE, Verification, verify_bundle

Reseal = Callable[..., None]
Network = Callable[..., onnx.ModelProto]
MODEL = Path("artefacts", "model.fp32.onnx")
TENSOR = Path("golden", "001.rgb")


def verify(bundle: Path) -> dict[str, Verification]:
    return {result.name: result for result in verify_bundle(open_bundle(bundle))}


def shift_pixel(file: Path, by: int) -> None:
    """Move one value of a tensor by so many of 255, without leaving the range."""
    pixels = np.frombuffer(file.read_bytes(), np.uint8).astype(np.int16)
    pixels[100] += by if pixels[100] < 128 else -by
    file.write_bytes(pixels.astype(np.uint8).tobytes())


def nan_network(network: Network) -> bytes:
    model = network()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    return bytes(model.SerializeToString())


def test_every_artefact_of_an_untouched_bundle_passes(tiny_bundle: Path) -> None:
    assert {name: found.passed for name, found in verify(tiny_bundle).items()} == {
        "openvino.fp32": True,
        "model.fp32": True,
    }


def test_differences_of_an_untouched_bundle_are_small(tiny_bundle: Path) -> None:
    for found in verify(tiny_bundle).values():
        assert found.tensor_max_abs_diff == 0
        assert found.max_abs_logit_diff is not None
        assert found.max_abs_logit_diff < 1e-4


def test_success_needs_no_reason(tiny_bundle: Path) -> None:
    assert {found.reason for found in verify(tiny_bundle).values()} == {""}


def test_other_weights_fail_though_the_checksum_is_right(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(network(seed=1).SerializeToString())
    reseal(tiny_copy)
    found = verify(tiny_copy)["model.fp32"]
    assert found.passed is False
    assert found.reason.startswith("logits differ by up to")


def test_other_weights_in_an_ir_fail_though_the_checksum_is_right(
    tiny_copy: Path, other_bundle: Path, reseal: Reseal
) -> None:
    weights = Path("artefacts", "openvino.fp32", "model.bin")
    (tiny_copy / weights).write_bytes((other_bundle / weights).read_bytes())
    reseal(tiny_copy)
    assert verify(tiny_copy)["openvino.fp32"].passed is False


def test_other_artefacts_are_not_blamed(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(network(seed=1).SerializeToString())
    reseal(tiny_copy)
    assert verify(tiny_copy)["openvino.fp32"].passed is True


def test_preprocessing_is_not_blamed_for_weights(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(network(seed=1).SerializeToString())
    reseal(tiny_copy)
    assert verify(tiny_copy)["model.fp32"].tensor_max_abs_diff == 0


def test_what_the_manifest_allows_passes(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(network(seed=1).SerializeToString())
    reseal(tiny_copy, lambda document: document["artefacts"][1]["parity"].update(golden_tolerance=50.0))
    assert verify(tiny_copy)["model.fp32"].passed is True


def test_altered_golden_tensor_is_reported_though_the_checksum_is_right(tiny_copy: Path, reseal: Reseal) -> None:
    shift_pixel(tiny_copy / TENSOR, 40)
    reseal(tiny_copy)
    found = verify(tiny_copy)["model.fp32"]
    assert (found.passed, found.tensor_max_abs_diff) == (False, 40)
    assert found.reason.startswith("preprocessing here differs by up to 40 of 255")


@pytest.mark.parametrize(("shift", "passed"), [(TENSOR_TOLERANCE, True), (TENSOR_TOLERANCE + 1, False)])
def test_tensors_may_differ_as_much_as_jpeg_decoders_do(
    tiny_copy: Path, reseal: Reseal, shift: int, passed: bool
) -> None:
    shift_pixel(tiny_copy / TENSOR, shift)
    reseal(tiny_copy)
    assert verify(tiny_copy)["model.fp32"].passed is passed


def test_other_picture_is_preprocessing_s_fault(tiny_copy: Path, other_bundle: Path, reseal: Reseal) -> None:
    (tiny_copy / "golden" / "000.png").write_bytes((other_bundle / "golden" / "000.png").read_bytes())
    reseal(tiny_copy)
    found = verify(tiny_copy)["openvino.fp32"]
    assert found.reason.startswith("preprocessing here differs")
    assert "logits" not in found.reason


def test_other_golden_logits_fail(tiny_copy: Path, reseal: Reseal) -> None:
    reseal(tiny_copy, lambda document: document["golden"][2]["logits"].__setitem__(0, 9.0))
    assert {found.passed for found in verify(tiny_copy).values()} == {False}


def test_logits_that_are_no_numbers_fail_with_the_reason(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(nan_network(network))
    reseal(tiny_copy)
    found = verify(tiny_copy)["model.fp32"]
    assert (found.passed, found.max_abs_logit_diff) == (False, None)
    assert "logits that are not finite" in found.reason


def test_artefact_that_does_not_load_fails_with_the_reason(tiny_copy: Path, reseal: Reseal) -> None:
    (tiny_copy / MODEL).write_bytes(b"no model")
    reseal(tiny_copy)
    found = verify(tiny_copy)["model.fp32"]
    assert found.passed is False
    assert "cannot load 'model.fp32'" in found.reason


def test_artefact_with_other_outputs_fails_with_the_reason(tiny_copy: Path, reseal: Reseal, network: Network) -> None:
    (tiny_copy / MODEL).write_bytes(network(classes=5).SerializeToString())
    reseal(tiny_copy)
    found = verify(tiny_copy)
    assert {name: each.passed for name, each in found.items()} == {"openvino.fp32": True, "model.fp32": False}
    assert "the manifest says" in found["model.fp32"].reason


def test_artefact_whose_engine_is_missing_is_not_judged(
    python: Callable[..., subprocess.CompletedProcess[str]], tiny_bundle: Path
) -> None:
    code = """
import sys
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.verify import verify_bundle
for found in verify_bundle(open_bundle(sys.argv[1])):
    print(found.name, found.passed, found.reason)
"""
    found = python("-c", code, tiny_bundle, without=("openvino",)).stdout.splitlines()
    assert found == ["openvino.fp32 None openvino is not installed here", "model.fp32 True "]


def test_bundle_without_golden_vectors_is_refused(tiny_copy: Path, reseal: Reseal) -> None:
    reseal(tiny_copy, lambda document: document.update(golden=[]))
    with pytest.raises(BundleError, match="has no golden vectors"):
        verify(tiny_copy)


def test_golden_tensor_of_another_size_is_refused(tiny_copy: Path, reseal: Reseal) -> None:
    (tiny_copy / TENSOR).write_bytes(bytes(767))
    reseal(tiny_copy)
    with pytest.raises(BundleError, match=r"'golden/001\.rgb' has 767 values, expected \(16, 16, 3\)"):
        verify(tiny_copy)


def test_golden_picture_that_is_none_is_refused(tiny_copy: Path, reseal: Reseal) -> None:
    (tiny_copy / "golden" / "000.png").write_bytes(b"no picture")
    reseal(tiny_copy)
    with pytest.raises(EdgewrightError, match="not a picture"):
        verify(tiny_copy)


def test_golden_file_exchanged_after_opening_is_not_used(tiny_copy: Path) -> None:
    bundle = open_bundle(tiny_copy)
    shift_pixel(tiny_copy / TENSOR, 1)
    with pytest.raises(BundleError, match="was altered"):
        verify_bundle(bundle)


@pytest.mark.parametrize("others", ["also", "alone"])
def test_artefact_that_would_be_executed_in_another_precision_is_not_judged(
    tiny_copy: Path, reseal: Reseal, others: str
) -> None:
    # As OpenVINO does with INT8 on ARM: here, the file has nothing quantized.
    def declare(document: dict[str, Any]) -> None:
        for artefact in document["artefacts"]:
            if artefact["name"] == "openvino.fp32":
                artefact.update(precision="int8", executed="int8")
        if others == "alone":
            document["artefacts"] = [one for one in document["artefacts"] if one["name"] == "openvino.fp32"]

    reseal(tiny_copy, declare)
    found = verify(tiny_copy)
    assert found["openvino.fp32"].passed is None
    assert "otherwise than in int8" in found["openvino.fp32"].reason
    bundle = open_bundle(tiny_copy)
    if others == "alone":
        with pytest.raises(UsageError, match="otherwise than in int8"):
            runnable_artefacts(bundle, None)
        with pytest.raises(PrecisionError):
            load(tiny_copy)
        return
    assert found["model.fp32"].passed
    assert [artefact.name for artefact in runnable_artefacts(bundle, None)] == ["model.fp32"]
    with pytest.warns(RuntimeWarning, match="Using 'model.fp32'"), load(tiny_copy) as classifier:
        assert classifier.artefact.name == "model.fp32"
    with pytest.raises(PrecisionError, match="choose another artefact"):
        load(tiny_copy, "openvino.fp32")
