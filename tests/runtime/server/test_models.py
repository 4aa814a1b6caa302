"""How a bundle is put into service: engines, their threads, what is proven before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.runtime import openvino_cache
from edgewright.runtime.backends import EngineSettings
from edgewright.runtime.classifier import Classifier
from edgewright.runtime.errors import GateError, UsageError
from edgewright.runtime.server import models
from edgewright.runtime.server.models import load_model
from edgewright.runtime.server.settings import Limits, ServeSettings


@pytest.mark.parametrize("artefact", ["openvino.fp32", "model.fp32"])
def test_pictures_and_pixels_get_the_golden_logits(
    tiny_bundle: Path, artefact: str, golden_pixels: Any, golden_logits: Any
) -> None:
    model = load_model(tiny_bundle, ServeSettings(artefact=artefact, workers=2, max_batch=3))
    try:
        encoded = [(tiny_bundle / vector.image).read_bytes() for vector in model.manifest.golden]
        for pictures in (encoded, list(golden_pixels), [encoded[0], golden_pixels[1], encoded[2]]):
            answers = model.batcher.submit(pictures).future.result(20)
            np.testing.assert_allclose([answer.logits for answer in answers], golden_logits, atol=1e-3)
    finally:
        assert model.close(5)


def test_every_core_gets_an_engine_of_one_thread(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "available_cores", lambda: 3)
    for settings, workers in (
        (ServeSettings(), 3),
        (ServeSettings(threads=2), 1),
        (ServeSettings(threads=16), 1),
        (ServeSettings(workers=5), 5),
    ):
        model = load_model(tiny_bundle, settings)
        try:
            assert (model.workers, model.batcher.rules.queue, model.batcher.rules.max_batch) == (
                workers,
                max(8, 4 * workers),
                1,
            )
        finally:
            model.close(5)


def test_engines_side_by_side_are_not_pinned_to_the_same_core(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_cache, "available_cores", lambda: 2)
    alone = openvino_cache.compile_settings("fp32", EngineSettings(threads=2), "CPU", ("fp32",))
    assert alone["ENABLE_CPU_PINNING"] == "YES"
    model = load_model(tiny_bundle, ServeSettings(artefact="openvino.fp32", workers=1))
    try:
        backend: Any = model.classifier._backend
        assert backend._single.compiled.get_property("ENABLE_CPU_PINNING") is False
    finally:
        model.close(5)


def test_engine_that_computes_something_else_is_refused(
    tiny_copy: Path, reseal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Classifier] = []
    close = Classifier.close
    monkeypatch.setattr(Classifier, "close", lambda self: (closed.append(self), close(self)))

    def change(document: dict[str, Any]) -> None:
        document["golden"][1]["logits"][0] += 0.5

    reseal(tiny_copy, change)
    with pytest.raises(GateError, match=r"they differ by up to 0\.5, allowed 0\.001"):
        load_model(tiny_copy, ServeSettings(workers=2, artefact="openvino.fp32"))
    assert len(closed) == 2


def test_artefact_that_is_not_there_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="has no artefact for backend 'nothing'"):
        load_model(tiny_bundle, ServeSettings(backend="nothing"))


def test_device_is_asked_of_every_engine(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        load_model(tiny_bundle, ServeSettings(device="nonsense"))
    # OpenVINO's own choice among the devices that compute the precision: here there is only the CPU.
    model = load_model(tiny_bundle, ServeSettings(artefact="openvino.fp32", device="auto", workers=2))
    try:
        assert {classifier.execution.device for classifier in model._classifiers} == {"cpu"}
    finally:
        assert model.close(5)


def test_labels_with_less_than_the_least_score_are_unknown(tiny_bundle: Path, golden_pixels: Any) -> None:
    for least, known in ((0.0, True), (1.0, False)):
        model = load_model(tiny_bundle, ServeSettings(workers=1, min_score=least))
        try:
            answer = model.batcher.submit([golden_pixels[0]]).future.result(20)[0]
            assert model.classifier.prediction(answer.logits).known is known
        finally:
            assert model.close(5)


def test_one_body_of_the_largest_size_always_fits() -> None:
    limits = Limits(max_body_mb=64, max_buffered_mb=1)
    assert limits.max_buffered_bytes == limits.max_body_bytes
