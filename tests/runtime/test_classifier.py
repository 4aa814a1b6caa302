"""Pictures to labels: which artefact is taken, which pictures are, and what a prediction says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from edgewright.runtime.bundle import MANIFEST_FILE, open_bundle
from edgewright.runtime.classifier import Classifier, Prediction
from edgewright.runtime.errors import BackendError, BundleError, ImageError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.preprocess import preprocess
from edgewright.runtime.scores import softmax

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Paint = Callable[..., Image.Image]
LABELS = ("red", "green", "blue", "très noir")


@pytest.fixture(params=["openvino.fp32", "model.fp32"])
def classifier(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Classifier]:
    """Each artefact of the tiny bundle in turn."""
    with load(tiny_bundle, request.param, threads=1) as loaded:
        yield loaded


@pytest.fixture
def onnx_classifier(tiny_bundle: Path) -> Iterator[Classifier]:
    """The tiny bundle on ONNX Runtime, for what does not depend on the engine."""
    with load(tiny_bundle, "model.fp32", threads=1) as loaded:
        yield loaded


def answer(prediction: Prediction) -> tuple[object, ...]:
    """A prediction without its timings, which differ each time."""
    return prediction.label, prediction.index, prediction.score, prediction.top_k


# Which artefact


def test_recommended_artefact_is_the_default(tiny_bundle: Path) -> None:
    with load(tiny_bundle) as classifier:
        assert classifier.artefact.name == "openvino.fp32"


def test_recommendation_wins_over_the_order_of_artefacts(tiny_copy: Path, reseal: Callable[..., None]) -> None:
    reseal(tiny_copy, lambda document: document.update(recommended="model.fp32"))
    with load(tiny_copy) as classifier:
        assert classifier.artefact.name == "model.fp32"


def test_artefact_is_loaded_by_name(tiny_bundle: Path) -> None:
    with load(str(tiny_bundle), "model.fp32") as classifier:
        assert (classifier.artefact.name, classifier.backend_name) == ("model.fp32", "onnxruntime")


def test_artefact_is_loaded_by_backend(tiny_bundle: Path) -> None:
    with load(tiny_bundle, backend="onnxruntime") as classifier:
        assert (classifier.artefact.name, classifier.backend_name) == ("model.fp32", "onnxruntime")


@pytest.mark.parametrize(
    ("artefact", "backend", "own"),
    [("openvino.fp32", "onnxruntime", "openvino"), ("model.fp32", "openvino", "onnxruntime")],
)
def test_artefact_runs_on_its_own_backend_only(tiny_bundle: Path, artefact: str, backend: str, own: str) -> None:
    with pytest.raises(UsageError, match=f"'{artefact}' cannot run on backend '{backend}'. It is made for {own}"):
        load(tiny_bundle, artefact, backend)


@pytest.mark.parametrize("artefact", ["openvino.fp32", "model.fp32"])
@pytest.mark.parametrize("threads", [0, 1025])
def test_absurd_number_of_threads_is_refused(tiny_bundle: Path, artefact: str, threads: int) -> None:
    with pytest.raises(UsageError, match=f"{threads} threads for an engine"):
        load(tiny_bundle, artefact, threads=threads)


def test_unknown_artefact_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"No artefact 'model\.int8'.*It has: openvino\.fp32, model\.fp32"):
        load(tiny_bundle, "model.int8")


@pytest.mark.parametrize("artefact", [None, "model.fp32"])
def test_unknown_backend_is_refused(tiny_bundle: Path, artefact: str | None) -> None:
    with pytest.raises(UsageError, match="backend 'tflite'"):
        load(tiny_bundle, artefact, "tflite")


def test_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No bundle at"):
        load(tmp_path / "nowhere")


def test_artefact_exchanged_after_opening_is_not_loaded(tiny_copy: Path) -> None:
    bundle = open_bundle(tiny_copy)
    file = tiny_copy / "artefacts" / "model.fp32.onnx"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(BundleError, match="was altered"):
        Classifier(bundle, bundle.manifest.artefact("model.fp32"))


def test_model_with_another_input_is_refused(
    tiny_copy: Path, reseal: Callable[..., None], network: Callable[..., onnx.ModelProto]
) -> None:
    model = network()
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(model.SerializeToString())
    reseal(tiny_copy)
    with pytest.raises(BackendError, match=r"has the tensors .*'images'.*; the manifest says .*'pixels'"):
        load(tiny_copy, "model.fp32")


def test_model_with_more_outputs_than_labels_is_refused(
    tiny_copy: Path, reseal: Callable[..., None], network: Callable[..., onnx.ModelProto]
) -> None:
    model = network(classes=5).SerializeToString()
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(model)
    reseal(tiny_copy)
    with pytest.raises(BackendError, match=r"has the tensors .*\(None, 5\).*; the manifest says .*\(None, 4\)"):
        load(tiny_copy, "model.fp32")


WITHOUT_OPENVINO = """
import sys, warnings
from edgewright import load
from edgewright.runtime.errors import MissingExtraError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        with load(sys.argv[1], *sys.argv[2:]) as classifier:
            print(classifier.artefact.name)
    except MissingExtraError as error:
        print(error)
for warning in caught:
    print(warning.category.__name__, warning.filename, warning.message)
"""


def test_missing_engine_falls_back_with_a_warning(
    python: Callable[..., subprocess.CompletedProcess[str]], tiny_bundle: Path
) -> None:
    lines = python("-c", WITHOUT_OPENVINO, tiny_bundle, without=("openvino",)).stdout.splitlines()
    warning = (
        "RuntimeWarning <string> 'openvino.fp32' is recommended, but openvino is not installed here; "
        "using 'model.fp32'. To get it: pip install 'edgewright[openvino]'"
    )
    assert lines == ["model.fp32", warning]


def test_missing_engine_that_was_asked_for_is_an_error(
    python: Callable[..., subprocess.CompletedProcess[str]], tiny_bundle: Path
) -> None:
    lines = python("-c", WITHOUT_OPENVINO, tiny_bundle, "openvino.fp32", without=("openvino",)).stdout.splitlines()
    assert lines == ["The package 'openvino' is not installed. Install it with: pip install 'edgewright[openvino]'"]


# Which pictures


@pytest.mark.parametrize("label", LABELS)
def test_pictures_get_their_labels(classifier: Classifier, paint: Paint, label: str) -> None:
    assert {classifier(paint(label, seed)).label for seed in range(20)} == {label}


def test_path_bytes_image_and_array_are_the_same_picture(classifier: Classifier, paint: Paint, tmp_path: Path) -> None:
    image = paint("blue", 1, (30, 21))
    file = tmp_path / "blue.png"
    image.save(file)
    sources: list[Any] = [file, str(file), file.read_bytes(), image, np.asarray(image)]
    assert len({answer(prediction) for prediction in classifier.predict(sources)}) == 1


def test_calling_is_predicting_one(classifier: Classifier, paint: Paint) -> None:
    image = paint("green", 2)
    assert answer(classifier(image)) == answer(classifier.predict([image])[0])


def test_predictions_come_in_the_order_of_pictures(classifier: Classifier, paint: Paint) -> None:
    labels = ["blue", "red", "très noir", "green", "red"]
    assert [found.label for found in classifier.predict([paint(label, 3) for label in labels])] == labels


def test_prepared_pixels_get_the_same_predictions(classifier: Classifier, paint: Paint) -> None:
    images = [paint(label, 4, (40, 25)) for label in LABELS]
    pixels = np.stack([preprocess(image, classifier.manifest.preprocess) for image in images])
    theirs = [(found.label, round(found.score, 5)) for found in classifier.predict(images)]
    assert [(found.label, round(found.score, 5)) for found in classifier.predict_tensor(pixels)] == theirs


def test_no_pictures_give_no_predictions(onnx_classifier: Classifier) -> None:
    assert onnx_classifier.predict([]) == []


@pytest.mark.parametrize(
    "images",
    [
        "picture.png",
        b"bytes",
        bytearray(b"bytes"),
        Path("picture.png"),
        PurePosixPath("picture.png"),
        np.zeros((20, 20, 3), np.uint8),
        Image.new("RGB", (20, 20)),
    ],
    ids=lambda images: type(images).__name__,
)
def test_single_picture_in_place_of_a_list_is_refused(onnx_classifier: Classifier, images: Any) -> None:
    with pytest.raises(UsageError, match="takes a list of pictures"):
        onnx_classifier.predict(images)


def test_what_is_no_picture_is_refused(onnx_classifier: Classifier) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        onnx_classifier(b"hello")


def test_limit_on_pixels_is_passed_on(onnx_classifier: Classifier, paint: Paint) -> None:
    with pytest.raises(ImageError, match="the limit is 100"):
        onnx_classifier.predict([paint("red", 6)], max_pixels=100)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((1, 16, 16, 3), np.int8),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 17, 16, 3), np.uint8),
        np.zeros((1, 3, 16, 16), np.uint8),
        np.zeros((1, 16, 16, 4), np.uint8),
        np.zeros((0, 16, 16, 3), np.uint8),
    ],
    ids=["float32", "int8", "no batch", "size", "layout", "alpha", "empty batch"],
)
def test_tensor_of_another_kind_is_refused(onnx_classifier: Classifier, pixels: Any) -> None:
    with pytest.raises(UsageError, match=r"Expected uint8 .* shape \(N, 16, 16, 3\)"):
        onnx_classifier.predict_tensor(pixels)


def test_tensor_may_be_a_view(classifier: Classifier, golden_pixels: Pixels) -> None:
    mirrored = golden_pixels[:, :, ::-1]
    np.testing.assert_array_equal(classifier.run(mirrored), classifier.run(mirrored.copy()))


# What a prediction says


def test_run_gives_the_golden_logits(classifier: Classifier, golden_pixels: Pixels, golden_logits: Logits) -> None:
    np.testing.assert_allclose(classifier.run(golden_pixels), golden_logits, rtol=0, atol=1e-4)


def test_scores_are_the_softmax_of_the_logits(
    classifier: Classifier, golden_pixels: Pixels, golden_logits: Logits
) -> None:
    predictions = classifier.predict_tensor(golden_pixels)
    found = [[score.score for score in sorted(each.top_k, key=lambda score: score.index)] for each in predictions]
    np.testing.assert_allclose(found, softmax(golden_logits), atol=1e-5)


def test_best_label_heads_the_list(classifier: Classifier, paint: Paint) -> None:
    prediction = classifier(paint("green", 7))
    best = prediction.top_k[0]
    assert (best.label, best.index, best.score) == (prediction.label, prediction.index, prediction.score)


def test_list_goes_from_best_to_worst(classifier: Classifier, paint: Paint) -> None:
    scores = [found.score for found in classifier(paint("blue", 8)).top_k]
    assert scores == sorted(scores, reverse=True)


def test_labels_belong_to_their_indices(classifier: Classifier, paint: Paint) -> None:
    assert {found.index: found.label for found in classifier(paint("red", 9)).top_k} == dict(enumerate(LABELS))


def test_labels_are_in_index_order(onnx_classifier: Classifier) -> None:
    assert onnx_classifier.labels == LABELS


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (3, 3), (4, 4), (100, 4)])
def test_list_is_as_long_as_was_asked_or_there_are_classes(
    onnx_classifier: Classifier, paint: Paint, top_k: int, expected: int
) -> None:
    assert len(onnx_classifier(paint("red", 10), top_k).top_k) == expected


@pytest.mark.parametrize("top_k", [0, -1])
def test_list_of_nothing_is_refused(onnx_classifier: Classifier, paint: Paint, top_k: int) -> None:
    with pytest.raises(UsageError, match=f"top_k is {top_k}; expected at least 1"):
        onnx_classifier.predict([paint("red", 11)], top_k=top_k)


def test_pictures_below_the_energy_of_the_artefact_are_unknown(
    tiny_copy: Path, reseal: Callable[..., None], paint: Paint
) -> None:
    picture = paint("red", 14)
    with load(tiny_copy, "model.fp32") as classifier:
        assert classifier(picture).known
        logits = classifier.run(preprocess(picture, classifier.manifest.preprocess)[None])[0].astype(np.float64)
        found = float(np.log(np.exp(logits).sum()))
    for threshold, known in ((found - 1e-3, True), (found + 1e-3, False)):
        reseal(tiny_copy, lambda document, at=threshold: document["artefacts"][1].update(known_energy=at))
        with load(tiny_copy, "model.fp32") as classifier:
            assert classifier.artefact.known_energy == threshold
            assert classifier(picture).known is known


def test_scores_below_what_was_asked_for_are_unknown(tiny_bundle: Path, paint: Paint) -> None:
    picture = paint("red", 15)
    with load(tiny_bundle, "model.fp32") as classifier:
        score = classifier(picture).score
    for least, known in ((score - 1e-6, True), (score + 1e-6, False)):
        with load(tiny_bundle, "model.fp32", min_score=least) as classifier:
            assert classifier(picture).known is known
    with pytest.raises(UsageError, match="expected 0 to 1"):
        load(tiny_bundle, "model.fp32", min_score=1.5)


def test_every_stage_takes_time(classifier: Classifier, paint: Paint, tmp_path: Path) -> None:
    paint("red", 12).save(tmp_path / "red.png")
    timings = classifier(tmp_path / "red.png").timings
    assert min(timings.decode_ms, timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms) > 0


def test_model_that_gives_other_outputs_than_it_declares_is_an_error(
    tiny_copy: Path, reseal: Callable[..., None], network: Callable[..., onnx.ModelProto], paint: Paint
) -> None:
    model = network(classes=5)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    # Behind a computed shape, so that nobody finds out before it runs.
    model.graph.node[-1].output[0] = "five"
    model.graph.node.append(onnx.helper.make_node("Shape", ["five"], ["shape"]))
    model.graph.node.append(onnx.helper.make_node("Reshape", ["five", "shape"], ["logits"]))
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(model.SerializeToString())
    reseal(tiny_copy)
    with load(tiny_copy, "model.fp32") as classifier, pytest.raises(BackendError, match=r"logits of shape \(1, 5\)"):
        classifier(paint("red", 13))


@pytest.mark.parametrize(
    "bias", [[np.nan] * 4, [0, 0, np.inf, 0], [0, -np.inf, 0, np.inf]], ids=["NaN", "infinite", "both signs"]
)
def test_logits_that_are_not_finite_are_an_error(
    tiny_copy: Path,
    reseal: Callable[..., None],
    network: Callable[..., onnx.ModelProto],
    paint: Paint,
    golden_pixels: Pixels,
    bias: list[float],
) -> None:
    model = network()
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    head.CopyFrom(onnx.numpy_helper.from_array(np.array(bias, np.float32), "bias"))
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(model.SerializeToString())
    reseal(tiny_copy)
    message = r"'model\.fp32' gave logits that are not finite"
    with load(tiny_copy, "model.fp32") as classifier:
        with pytest.raises(BackendError, match=message):
            classifier(paint("red", 13))
        with pytest.raises(BackendError, match=message):
            classifier.run(golden_pixels)


# Life and threads


def test_leaving_the_block_closes_the_engine(tiny_bundle: Path, paint: Paint) -> None:
    with load(tiny_bundle, "model.fp32") as classifier:
        pass
    with pytest.raises(BackendError, match="is closed"):
        classifier(paint("red", 14))


def test_classifier_may_be_closed_twice(tiny_bundle: Path) -> None:
    classifier = load(tiny_bundle, "model.fp32")
    classifier.close()
    classifier.close()


def test_bundle_may_vanish_after_loading(tiny_copy: Path, paint: Paint) -> None:
    with load(tiny_copy) as classifier:
        tiny_copy.rename(tiny_copy.with_name("elsewhere"))
        assert classifier(paint("blue", 15)).label == "blue"


def test_threads_may_share_a_classifier(classifier: Classifier, paint: Paint) -> None:
    images = [paint(label, seed) for seed in range(5) for label in LABELS]
    expected = [answer(classifier(image)) for image in images]

    def whole_list(worker: int) -> bool:
        order = np.random.default_rng(worker).permutation(len(images)).tolist()
        return all(answer(classifier(images[index])) == expected[index] for index in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(whole_list, range(8)))


def made_for_another_cpu(bundle: Path, name: str) -> None:
    """Change the manifest so that `name` is recommended and made for a CPU that nobody has."""
    path = bundle / MANIFEST_FILE
    document = json.loads(path.read_text())
    document["recommended"] = name
    for artefact in document["artefacts"]:
        artefact["machines"] = ["pdp11"] if artefact["name"] == name else []
    path.write_text(json.dumps(document))


def test_artefact_for_another_cpu_is_passed_over_with_a_warning(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    made_for_another_cpu(bundle, "openvino.fp32")
    with pytest.warns(RuntimeWarning, match="but it is made for pdp11, this is") as told, load(bundle) as classifier:
        assert classifier.artefact.name == "model.fp32"
    assert told[0].filename == __file__


def test_tensorrt_that_cannot_be_had_is_replaced_aloud(tiny_bundle: Path) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    with (
        pytest.warns(RuntimeWarning, match="'tensorrt' is not installed.* ONNX Runtime runs 'model.fp32'") as told,
        load(tiny_bundle, artefact="model.fp32", backend="tensorrt") as classifier,
    ):
        assert (classifier.artefact.name, classifier.backend_name) == ("model.fp32", "onnxruntime")
    assert told[0].filename == __file__
