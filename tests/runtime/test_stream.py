"""`Classifier.stream`: what `classifier(picture)` says of each, side by side, for any number of them."""

from __future__ import annotations

import itertools
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgewright.runtime.classifier import Classifier, Prediction
from edgewright.runtime.errors import BackendError, ImageError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.picture import Picture

Paint = Callable[..., Image.Image]
LABELS = ("red", "green", "blue", "très noir")


@pytest.fixture(params=["openvino.fp32", "model.fp32"])
def classifier(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Classifier]:
    """Each artefact of the tiny bundle in turn."""
    with load(tiny_bundle, request.param) as loaded:
        yield loaded


@pytest.fixture
def onnx_classifier(tiny_bundle: Path) -> Iterator[Classifier]:
    """The tiny bundle on ONNX Runtime, for what does not depend on the engine."""
    with load(tiny_bundle, "model.fp32") as loaded:
        yield loaded


@pytest.fixture
def files(tmp_path: Path, paint: Paint) -> list[Path]:
    """Twelve pictures: three of each class in turn."""
    found = []
    for number in range(12):
        found.append(tmp_path / f"{number:02d}.png")
        paint(LABELS[number % 4], number, (20 + number, 24)).save(found[-1])
    return found


def rounded(prediction: Prediction | None) -> list[tuple[str, int, float]]:
    assert prediction is not None
    return [(found.label, found.index, round(found.score, 5)) for found in prediction.top_k]


@pytest.mark.parametrize(("workers", "batch"), [(None, 1), (1, 1), (3, 1), (2, 5), (1, 100)])
def test_stream_says_what_calls_say(classifier: Classifier, files: list[Path], workers: int | None, batch: int) -> None:
    expected = [rounded(classifier(file)) for file in files]
    found = list(classifier.stream(files, workers=workers, batch=batch))
    assert [result.source for result in found] == files
    assert [rounded(result.prediction) for result in found] == expected
    assert [result.error for result in found] == [None] * len(files)


def test_each_picture_has_its_times(classifier: Classifier, files: list[Path]) -> None:
    for result in classifier.stream(files, batch=5):
        assert result.prediction is not None
        timings = result.prediction.timings
        assert min(timings.decode_ms, timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms) > 0


@pytest.mark.parametrize("batch", [1, 4])
def test_picture_that_cannot_be_read_is_an_error_of_its_own(
    classifier: Classifier, files: list[Path], batch: int
) -> None:
    files[5].write_bytes(b"no picture")
    sources = [*files, files[0].parent / "nowhere.png", Picture("frame", ImageError("torn"))]
    found = list(classifier.stream(sources, batch=batch))
    assert [number for number, result in enumerate(found) if result.error is not None] == [5, 12, 13]
    assert [number for number, result in enumerate(found) if result.prediction is None] == [5, 12, 13]
    assert [str(found[number].error) for number in (5, 13)] == [
        f"{files[5]} is not a picture that can be read. Expected JPEG, PNG, WEBP, BMP.",
        "torn",
    ]


def test_batch_of_nothing_but_errors_does_not_reach_the_engine(onnx_classifier: Classifier) -> None:
    found = list(onnx_classifier.stream([b"", b"x", b"y"], batch=3))
    assert [result.prediction for result in found] == [None] * 3


def test_any_kind_of_picture_will_do(onnx_classifier: Classifier, files: list[Path]) -> None:
    with Image.open(files[2]) as image:
        sources: list[Any] = [
            str(files[2]),
            files[2].read_bytes(),
            image.copy(),
            Picture.at(files[2]),
            Picture("made when needed", image.copy),
        ]
    assert len({tuple(rounded(result.prediction)) for result in onnx_classifier.stream(sources)}) == 1


def test_stream_may_be_endless(onnx_classifier: Classifier, files: list[Path]) -> None:
    stream = onnx_classifier.stream(itertools.cycle(files))
    labels = [result.prediction.label for result in itertools.islice(stream, 50) if result.prediction]
    stream.close()
    assert labels == [LABELS[number % 12 % 4] for number in range(50)]


def test_top_k_and_limit_on_pixels_are_passed_on(onnx_classifier: Classifier, files: list[Path]) -> None:
    (result,) = onnx_classifier.stream(files[:1], 2)
    assert result.prediction is not None
    assert len(result.prediction.top_k) == 2
    (result,) = onnx_classifier.stream(files[:1], max_pixels=100)
    assert "the limit is 100" in str(result.error)


def test_engine_that_fails_ends_the_stream(onnx_classifier: Classifier, files: list[Path]) -> None:
    stream = onnx_classifier.stream(itertools.cycle(files), in_flight=2)
    next(stream)
    onnx_classifier.close()
    with pytest.raises(BackendError, match="is closed"):
        list(itertools.islice(stream, 10))


def test_closed_classifier_does_not_load_again(onnx_classifier: Classifier, files: list[Path]) -> None:
    onnx_classifier.close()
    with pytest.raises(BackendError, match="is closed"):
        list(onnx_classifier.stream(files, workers=3))


def test_several_streams_may_run_at_once(classifier: Classifier, files: list[Path]) -> None:
    expected = [rounded(classifier(file)) for file in files]
    found: dict[int, list[list[tuple[str, int, float]]]] = {}

    def run(number: int) -> None:
        found[number] = [rounded(result.prediction) for result in classifier.stream(files, workers=2)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_bundle_is_not_needed_any_more_once_it_is_loaded(tiny_copy: Path, files: list[Path]) -> None:
    with load(tiny_copy, "model.fp32", threads=1, streams=2) as side_by_side, load(tiny_copy, "model.fp32") as alone:
        tiny_copy.rename(tiny_copy.with_name("elsewhere"))
        for classifier in (side_by_side, alone):
            assert len(list(classifier.stream(files, workers=3))) == len(files)


@pytest.mark.parametrize("images", ["picture.png", b"bytes", Path("picture.png"), Picture.at("picture.png")])
def test_single_picture_in_place_of_many_is_refused(onnx_classifier: Classifier, images: Any) -> None:
    with pytest.raises(UsageError, match="takes a list of pictures"):
        onnx_classifier.stream(images)


@pytest.mark.parametrize("numbers", [{"top_k": 0}, {"workers": 0}, {"batch": 0}, {"in_flight": 0}])
def test_numbers_that_cannot_work_are_refused_at_once(onnx_classifier: Classifier, numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"[Ee]xpected"):
        onnx_classifier.stream([], **numbers)


def test_ten_times_the_pictures_need_no_more_memory(onnx_classifier: Classifier, paint: Paint, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    paint("red", 1).save(file)

    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for result in onnx_classifier.stream(file for _ in range(count)):
            assert result.prediction is not None
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(100)
        few, many = peak(100), peak(1000)
    finally:
        tracemalloc.stop()
    # A result that is kept takes about a kilobyte.
    assert many < few + 300_000


LAST = """
import sys
from edgewright.runtime.loading import load
classifier = load(sys.argv[1], sys.argv[2])
stream = classifier.stream([sys.argv[3]] * 50, workers=4)
print(sum(result.prediction.label == "red" for result in stream) if sys.argv[4] == "all" else next(stream).prediction.label)
"""


@pytest.mark.parametrize("artefact", ["openvino.fp32", "model.fp32"])
@pytest.mark.parametrize(("how", "said"), [("all", "50"), ("one", "red")])
def test_program_that_streamed_ends_well(
    python: Callable[..., subprocess.CompletedProcess[str]],
    tiny_bundle: Path,
    tmp_path: Path,
    paint: Paint,
    artefact: str,
    how: str,
    said: str,
) -> None:
    """Neither the engine's threads nor ours may be caught by the end of the interpreter."""
    paint("red", 1).save(tmp_path / "red.png")
    for _ in range(3):
        found = python("-c", LAST, tiny_bundle, artefact, tmp_path / "red.png", how)
        assert (found.returncode, found.stdout.strip(), found.stderr) == (0, said, "")
