"""A trained classifier of digits as ONNX, with pictures of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edgewright.export.onnx_graph import to_onnx
from edgewright.export.quantization.workshop import Workshop
from edgewright.runtime.preprocess import Preprocess, preprocess
from edgewright.train.run import Run


@dataclass(frozen=True)
class Digits:
    """Its float graph, pixels uint8 (N, 48, 48, 3) it was trained on, and others with labels (N)."""

    model: onnx.ModelProto
    spec: Preprocess
    known: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@pytest.fixture(scope="session")
def digits(digits_run: Run) -> Digits:
    data, spec = digits_run.data(), digits_run.record.preprocess
    known = np.stack([preprocess(sample.source, spec) for sample in data.splits["train"][::20]])
    test = data.splits["test"][::2]
    pixels = np.stack([preprocess(sample.source, spec) for sample in test])
    labels = np.array([sample.label for sample in test])
    return Digits(to_onnx(digits_run.network(), spec.crop), spec, known, pixels, labels)


@pytest.fixture(scope="session")
def workshop(digits: Digits) -> Workshop:
    return Workshop(digits.model, digits.spec, digits.known)
