"""A classifier whose model is on a server: the same logits as here, and no answer that is not what the bundle promises."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import BackendError, EdgewrightError, GateError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.remote.settings import RemoteSettings

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Serve = Callable[..., Any]
Paint = Callable[..., Image.Image]


def change(path: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Any, str], Any]:
    """A tamper for JSON answers whose path ends with `path`: `edit` changes the document."""

    def tamper(reply: Any, found: str) -> Any:
        if not found.endswith(path):
            return reply
        size = int(reply.headers.get("Inference-Header-Content-Length", len(reply.body)))
        document = json.loads(reply.body[:size])
        edit(document)
        head = json.dumps(document).encode()
        headers = dict(reply.headers)
        if "Inference-Header-Content-Length" in headers:
            headers["Inference-Header-Content-Length"] = str(len(head))
        return replace(reply, body=head + reply.body[size:], headers=headers)

    return tamper


# What works


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("batch", [-1, 1])
def test_server_gives_the_golden_logits(
    serve: Serve, tiny_bundle: Path, golden_pixels: Pixels, golden_logits: Logits, binary: bool, layout: str, batch: int
) -> None:
    server = serve(binary=binary, layout=layout, batch=batch)
    with load(tiny_bundle, backend="remote", remote=server.url) as classifier:
        np.testing.assert_allclose(classifier.run(golden_pixels), golden_logits, rtol=0, atol=1e-4)
    assert server.requests.count("POST /v2/models/colours-0/infer") == (1 if batch == -1 else 3)


def test_pictures_get_their_labels(serve: Serve, tiny_bundle: Path, paint: Paint) -> None:
    labels = ["blue", "red", "très noir", "green"]
    with load(tiny_bundle, remote=serve().url) as classifier:
        assert [found.label for found in classifier.predict([paint(label, 1) for label in labels])] == labels


def test_execution_says_where(serve: Serve, tiny_bundle: Path) -> None:
    server = serve()
    with load(tiny_bundle, remote=server.url) as classifier:
        assert classifier.backend_name == "remote"
        assert classifier.execution.device == "remote"
        assert classifier.execution.provider == f"onnxruntime_onnx at {server.url}/v2/models/colours-0"


def test_model_and_version_can_be_told_in_the_address(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    server = serve(name="a model/x", versions=("3", "7"))
    with load(tiny_bundle, remote=f"{server.url}/v2/models/a%20model%2Fx/versions/3") as classifier:
        classifier.run(golden_pixels)
    assert server.requests[-1] == "POST /v2/models/a%20model%2Fx/versions/3/infer"


def test_connection_is_kept(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    server = serve()
    with load(tiny_bundle, remote=server.url) as classifier:
        for _ in range(5):
            classifier.run(golden_pixels)
    assert len(server.requests) == 6
    assert len(set(server.connections)) == 1


def test_threads_get_the_answers_that_one_thread_gets(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    server = serve()
    with load(tiny_bundle, remote=server.url) as classifier:
        expected = [classifier.run(picture[None]).tobytes() for picture in golden_pixels]

        def thirty_runs(worker: int) -> bool:
            picks = np.random.default_rng(worker).integers(0, 3, 30)
            return all(classifier.run(golden_pixels[pick, None]).tobytes() == expected[pick] for pick in picks)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(thirty_runs, range(8)))
    assert len(set(server.connections)) <= 8


def test_golden_vectors_accept_the_bundle_s_own_model(serve: Serve, tiny_bundle: Path) -> None:
    load(tiny_bundle, remote=serve().url, verify=True).close()


def test_golden_vectors_find_another_model(serve: Serve, other_bundle: Path) -> None:
    # The same tensors, other weights: nothing else could tell.
    server = serve(name="colours-1")
    load(other_bundle, remote=server.url).close()
    with pytest.raises(GateError, match=r"gives other logits than the trained model of 'colours-1'"):
        load(other_bundle, remote=server.url, verify=True)


def test_token_is_sent(serve: Serve, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(token="s3cret")
    with pytest.raises(BackendError, match=r"status 401: wrong token\. It wants a token: set EDGEWRIGHT_TOKEN"):
        load(tiny_bundle, remote=server.url)
    load(tiny_bundle, remote=RemoteSettings(server.url, token="s3cret")).close()
    monkeypatch.setenv("EDGEWRIGHT_TOKEN", "s3cret")
    load(tiny_bundle, remote=server.url).close()


def test_warm_up_asks_the_server(serve: Serve, tiny_bundle: Path) -> None:
    server = serve()
    with load(tiny_bundle, remote=server.url) as classifier:
        classifier.warm_up(2)
    assert server.requests.count("POST /v2/models/colours-0/infer") == 2


# What the bundle does not promise


def test_unknown_model_is_named(serve: Serve, tiny_bundle: Path) -> None:
    server = serve(name="flowers")
    with pytest.raises(BackendError, match=r"colours-0 answered with status 404: unknown model 'colours-0'\. .*NAME"):
        load(tiny_bundle, remote=server.url)


def test_version_that_is_not_there_is_refused(serve: Serve, tiny_bundle: Path) -> None:
    server = serve(versions=("1", "2"))
    with pytest.raises(BackendError, match="status 404"):
        load(tiny_bundle, remote=f"{server.url}/v2/models/colours-0/versions/3")
    # Some servers ignore the version in the path of metadata.
    server.tamper = change("/versions/2", lambda document: document.update(versions=["1"]))
    with pytest.raises(BackendError, match=r"has the versions 1, not 2\. Name one of these"):
        load(tiny_bundle, remote=f"{server.url}/v2/models/colours-0/versions/2")


def test_version_that_changes_meanwhile_is_refused(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    server = serve(versions=("1",))
    with load(tiny_bundle, remote=server.url) as classifier:
        classifier.run(golden_pixels)
        server.versions = ("1", "2")
        with pytest.raises(BackendError, match=r"answered with version '2'; expected '1', which was checked"):
            classifier.run(golden_pixels)


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: found["inputs"][0].update(name="images"),
        lambda found: found["inputs"][0].update(datatype="FP32"),
        lambda found: found["inputs"][0].update(shape=[-1, 32, 32, 3]),
        lambda found: found["inputs"].append(found["inputs"][0]),
        lambda found: found["outputs"][0].update(shape=[-1, 5]),
        lambda found: found["outputs"][0].update(datatype="FP16"),
        lambda found: found["outputs"][0].update(datatype="\x1b[2J"),
    ],
    ids=["name", "type", "size", "inputs", "classes", "half", "escape"],
)
def test_other_tensors_are_refused(serve: Serve, tiny_bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    server = serve(tamper=change("colours-0", edit))
    with pytest.raises(
        BackendError, match=r"has the tensors .*; the manifest says .*Serve this bundle there"
    ) as caught:
        load(tiny_bundle, remote=server.url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("shape", [[4], [], [8, 16, 16, 3], [0, 16, 16, 3]])
def test_shape_without_a_usable_batch_axis_is_refused(serve: Serve, tiny_bundle: Path, shape: list[int]) -> None:
    server = serve(tamper=change("colours-0", lambda found: found["inputs"][0].update(shape=shape)))
    with pytest.raises(BackendError, match="Expected a first axis of -1, or 1"):
        load(tiny_bundle, remote=server.url)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"{}", b"null", b"\xff\xfe", b'{"name": "x"}', b"[" * 100_000),
        b'{"name": "x", "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1e99]}], "outputs": []}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_metadata_that_are_none_are_refused(serve: Serve, tiny_bundle: Path, body: bytes) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, body=body))
    with pytest.raises(BackendError, match="does not speak the Open Inference Protocol v2"):
        load(tiny_bundle, remote=server.url)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda found: found["outputs"][0].update(name="scores"), "without the output 'logits'"),
        (lambda found: found["outputs"][0].update(shape=[3, 5]), r"shape \[3, 5\] with 12 values"),
        (lambda found: found["outputs"][0].update(shape=[4, 3]), r"answered with float32 \[4, 3\].*promised"),
        (lambda found: found["outputs"][0].update(shape=[12]), r"answered with float32 \[12\].*promised"),
        (lambda found: found["outputs"][0].update(datatype="UINT8", shape=[3, 16]), r"answered with uint8 \[3, 16\]"),
        (lambda found: found["outputs"][0].update(datatype="BYTES"), "of BYTES"),
        (
            lambda found: found["outputs"][0]["parameters"].update(binary_data_size=44),
            "48 bytes follow the JSON.*add up to 44",
        ),
        (
            lambda found: found["outputs"][0]["parameters"].update(binary_data_size=52),
            "48 bytes follow the JSON.*add up to 52",
        ),
        (lambda found: found["outputs"][0]["parameters"].update(binary_data_size=-4), "greater than or equal to 0"),
        (lambda found: found["outputs"][0].update(parameters={}), "48 bytes follow the JSON.*add up to 0"),
        (lambda found: found.update(outputs=[]), "48 bytes follow the JSON.*add up to 0"),
        (lambda found: found.update(outputs=found["outputs"] * 2), "48 bytes follow the JSON.*add up to 96"),
        (lambda found: found.update(id="77"), "answered another request"),
        (lambda found: found.clear(), "outputs: Field required"),
    ],
)
def test_lying_answer_is_refused(
    serve: Serve,
    tiny_bundle: Path,
    golden_pixels: Pixels,
    edit: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    server = serve()
    with load(tiny_bundle, remote=server.url) as classifier:
        expected = classifier.run(golden_pixels)
        server.tamper = change("/infer", edit)
        with pytest.raises(BackendError, match=message):
            classifier.run(golden_pixels)
        server.tamper = lambda reply, path: reply
        np.testing.assert_array_equal(classifier.run(golden_pixels), expected)


@pytest.mark.parametrize(
    "values", [["x"] * 12, [None] * 12, [[1.0, 2.0], [3.0]], 12.0, "1" * 12, [1e400] * 12, [2**70] * 12]
)
def test_json_that_is_no_logits_is_refused(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels, values: Any) -> None:
    server = serve(binary=False, tamper=change("/infer", lambda found: found["outputs"][0].update(data=values)))
    with load(tiny_bundle, remote=server.url) as classifier, pytest.raises(BackendError, match=r"data|not finite"):
        classifier.run(golden_pixels)


def test_logits_that_are_not_finite_are_refused(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    def spoil(reply: Any, path: str) -> Any:
        return replace(reply, body=reply.body[:-4] + b"\0\0\xc0\x7f") if path.endswith("/infer") else reply

    with (
        load(tiny_bundle, remote=serve(tamper=spoil).url) as classifier,
        pytest.raises(BackendError, match="not finite"),
    ):
        classifier.run(golden_pixels)


def test_server_s_words_are_fit_for_a_terminal(serve: Serve, tiny_bundle: Path) -> None:
    body = json.dumps({"error": "\x1b[31mred\x07\n" + "x" * 10_000}).encode()
    server = serve(tamper=lambda reply, path: replace(reply, status=400, body=body))
    with pytest.raises(BackendError, match=r"status 400: \[31mred x+") as caught:
        load(tiny_bundle, remote=server.url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "does not allow"), (413, "fewer pictures"), (307, "Redirects"), (503, "busy"), (500, "status 500")],
)
def test_status_is_explained(serve: Serve, tiny_bundle: Path, status: int, advice: str) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, status=status, body=b""))
    with pytest.raises(BackendError, match=advice):
        load(tiny_bundle, remote=server.url)
    assert len(server.requests) == 1


def test_compressed_answer_is_refused(serve: Serve, tiny_bundle: Path) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(BackendError, match="compressed its answer"):
        load(tiny_bundle, remote=server.url)


# Closing


def test_closed_says_so(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    classifier = load(tiny_bundle, remote=serve().url)
    classifier.close()
    classifier.close()
    with pytest.raises(BackendError, match="is closed"):
        classifier.run(golden_pixels)


def test_closing_waits_for_an_answer_on_its_way(serve: Serve, tiny_bundle: Path, golden_pixels: Pixels) -> None:
    server = serve()
    classifier = load(tiny_bundle, remote=server.url)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(reply: Any, path: str) -> Any:
        arrived.set()
        assert go_on.wait(10)
        return reply

    server.tamper = hold
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(classifier.run, golden_pixels)
        assert arrived.wait(10)
        closing = pool.submit(classifier.close)
        assert not closing.done()
        go_on.set()
        assert running.result(10).shape == (3, 4)
        closing.result(10)


# Usage


def test_backend_without_a_server_says_what_is_missing(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="'remote' needs a server"):
        load(tiny_bundle, backend="remote")


def test_server_and_engine_exclude_each_other(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="A server was named, and the backend 'onnxruntime'"):
        load(tiny_bundle, "model.fp32", "onnxruntime", remote="http://127.0.0.1:9")


def test_server_and_device_exclude_each_other(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="server decides on which device"):
        load(tiny_bundle, device="cpu", remote="http://127.0.0.1:9")


def test_predict_and_verify_take_an_address(
    serve: Serve, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgewright.runtime.commands import verify_command
    from edgewright.runtime.predict_command import predict_command

    url = serve().url
    predict_command(tiny_bundle, [str(tiny_bundle / "golden" / "001.jpeg")], url=url, json=True)
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] == "blue"
    verify_command(tiny_bundle, url=url, json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert [row["name"] for row in document["artefacts"]] == ["remote"]


def test_verify_finds_another_model_on_the_server(serve: Serve, other_bundle: Path) -> None:
    from edgewright.runtime.commands import verify_command

    with pytest.raises(GateError, match="Verification failed"):
        verify_command(other_bundle, url=serve(name="colours-1").url)


def test_nobody_listening_is_one_message(
    edgewright: Callable[..., Any], serve: Serve, tiny_bundle: Path, tiny_opened: Bundle
) -> None:
    found = edgewright("predict", tiny_bundle, tiny_bundle / "golden" / "001.jpeg", "--url", "http://127.0.0.1:9")
    assert (found.returncode, found.stdout) == (EdgewrightError.exit_status, "")
    assert found.stderr.startswith("edgewright: No server listens at http://127.0.0.1:9")
