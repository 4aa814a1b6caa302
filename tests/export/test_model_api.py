"""The exported IR in Model API, OpenVINO's own wrapper: it opens as a classifier, with our labels and our answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from model_api.adapters import OpenvinoAdapter, create_core
from model_api.models import ClassificationModel
from PIL import Image

from edgewright.export.exporter import Export
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.loading import load
from edgewright.runtime.preprocess import preprocess
from edgewright.train.data import read_data

pytestmark = pytest.mark.slow

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Handwritten digits that were not trained on, as PNG files of a size that cameras give."""
    files = []
    for sample in read_data("digits", seed=0).splits["test"][:12]:
        stream = io.BytesIO()
        Image.open(io.BytesIO(sample.read_bytes())).convert("RGB").resize((120, 90), Image.Resampling.BICUBIC).save(
            stream, "PNG"
        )
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module", params=["openvino.fp32", "openvino.int8"])
def pair(request: pytest.FixtureRequest, digits_export: Export) -> tuple[Any, Classifier]:
    """Model API's wrapper and ours, of the same artefact."""
    bundle = digits_export.bundle
    artefact = bundle.manifest.artefact(request.param)
    path: Path = bundle.path / artefact.file
    # As a bundle says what it is executed in: left alone, OpenVINO computes in bf16 on CPUs that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    wrapper = ClassificationModel.create_model(
        OpenvinoAdapter(create_core(), str(path), device="CPU", plugin_config=settings)
    )
    return wrapper, load(bundle.path, artefact=artefact.name, threads=1)


def scores(wrapper: Any, rgb: Pixels) -> npt.NDArray[np.float32]:
    """Model API takes pictures as OpenCV reads them, channels BGR."""
    result: npt.NDArray[np.float32] = wrapper(np.ascontiguousarray(rgb[:, :, ::-1])).raw_scores.copy()
    return result


def ours(classifier: Classifier, picture: bytes) -> npt.NDArray[np.float32]:
    found = classifier(picture, top_k=len(classifier.labels)).top_k
    return np.array([entry.score for entry in sorted(found, key=lambda entry: entry.index)], dtype=np.float32)


def test_wrapper_has_the_labels_in_their_order(pair: tuple[Any, Classifier]) -> None:
    wrapper, classifier = pair
    assert wrapper.__model__ == "Classification"
    assert wrapper.params.labels == [label.replace(" ", "_") for label in classifier.labels]


def test_prepared_picture_gets_the_same_scores(pair: tuple[Any, Classifier], pictures: list[bytes]) -> None:
    wrapper, classifier = pair
    for picture in pictures:
        pixels = preprocess(picture, classifier.manifest.preprocess)
        np.testing.assert_allclose(scores(wrapper, pixels), ours(classifier, picture), rtol=0, atol=2e-3)


def test_top_label_is_ours(pair: tuple[Any, Classifier], pictures: list[bytes]) -> None:
    wrapper, classifier = pair
    for picture in pictures:
        pixels = preprocess(picture, classifier.manifest.preprocess)
        (best, *_) = wrapper(np.ascontiguousarray(pixels[:, :, ::-1])).top_labels
        expected = classifier(picture)
        assert (best.id, best.name) == (expected.index, expected.label)
        assert best.confidence == pytest.approx(expected.score, abs=2e-3)


def test_colours_are_not_swapped(pair: tuple[Any, Classifier]) -> None:
    wrapper, classifier = pair
    side = classifier.manifest.preprocess.crop
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[..., 0], pixels[: side // 2, :, 2] = 255, 90
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    expected = ours(classifier, stream.getvalue())
    assert np.abs(scores(wrapper, pixels[:, :, ::-1].copy()) - expected).max() > 0.01
    np.testing.assert_allclose(
        scores(wrapper, preprocess(stream.getvalue(), classifier.manifest.preprocess)), expected, atol=2e-3
    )


def test_raw_picture_gets_the_same_label_most_of_the_time(pair: tuple[Any, Classifier], pictures: list[bytes]) -> None:
    # Model API crops the largest square and resizes it without antialiasing, so that scores are close and no more.
    wrapper, classifier = pair
    same = [
        int(scores(wrapper, np.asarray(Image.open(io.BytesIO(picture)))).argmax()) == classifier(picture).index
        for picture in pictures
    ]
    assert sum(same) >= 0.75 * len(same)
