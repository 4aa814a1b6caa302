"""What clients that others wrote get from the running server: Triton's, KServe's, and a plain HTTP client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tritonclient.utils import InferenceServerException

from .conftest import Server, running

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@pytest.fixture
def triton_client(server: Server) -> Iterator[Any]:
    """NVIDIA's client."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def triton_input(array: npt.NDArray[Any], datatype: str, *, binary: bool) -> Any:
    tensor = triton.InferInput("pixels", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


# Triton's client


def test_triton_health_and_metadata(triton_client: Any) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("colours-0")
    assert triton_client.is_model_ready("colours-0", "1")
    assert not triton_client.is_model_ready("colours-0", "2")
    assert not triton_client.is_model_ready("unknown")
    assert triton_client.get_server_metadata()["name"] == "edgewright"
    assert triton_client.get_model_metadata("colours-1")["outputs"][0]["name"] == "logits"
    assert triton_client.get_model_metadata("colours-0", "1")["versions"] == ["1"]


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_triton_tensors(
    triton_client: Any, golden_pixels: Pixels, golden_logits: Logits, binary_input: bool, binary_output: bool
) -> None:
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary_output)]
    found = triton_client.infer(
        "colours-0", [triton_input(golden_pixels, "UINT8", binary=binary_input)], outputs=outputs, request_id="7"
    )
    np.testing.assert_allclose(found.as_numpy("logits"), golden_logits, atol=1e-3)
    assert found.get_response()["id"] == "7"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_compressed_tensors(
    triton_client: Any, golden_pixels: Pixels, golden_logits: Logits, compression: str | None
) -> None:
    found = triton_client.infer(
        "colours-0",
        [triton_input(golden_pixels, "UINT8", binary=True)],
        model_version="1",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    np.testing.assert_allclose(found.as_numpy("logits"), golden_logits, atol=1e-3)


def test_triton_encoded_pictures_and_classification(triton_client: Any, red: bytes, tiny_bundle: Path) -> None:
    blue = (tiny_bundle / "golden" / "001.jpeg").read_bytes()
    tensor = triton_input(np.array([red, blue], dtype=np.object_), "BYTES", binary=True)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
        found = triton_client.infer("colours-0", [tensor], outputs=outputs).as_numpy("logits")
        texts = [text.decode() if isinstance(text, bytes) else text for text in found[:, 0]]
        assert [text.split(":")[1:] for text in texts] == [["0", "red"], ["2", "blue"]]
        assert found.shape == (2, 2)


def test_triton_reads_what_is_wrong(triton_client: Any, golden_pixels: Pixels) -> None:
    wrong = triton.InferInput("image", [3, 16, 16, 3], "UINT8")
    wrong.set_data_from_numpy(golden_pixels)
    with pytest.raises(InferenceServerException, match=r"called 'image'\. Expected 'pixels'"):
        triton_client.infer("colours-0", [wrong])
    with pytest.raises(InferenceServerException, match=r"No model 'unknown'\. Served here: 'colours-0', 'colours-1'"):
        triton_client.infer("unknown", [triton_input(golden_pixels, "UINT8", binary=True)])


def test_triton_repository(triton_client: Any) -> None:
    index = triton_client.get_model_repository_index()
    assert [(entry["name"], entry["state"]) for entry in index] == [("colours-0", "READY"), ("colours-1", "READY")]
    triton_client.load_model("colours-0")
    with pytest.raises(InferenceServerException, match="Parameters are not supported"):
        triton_client.load_model("colours-0", config="{}")
    with pytest.raises(InferenceServerException, match="Nothing is at"):
        triton_client.unload_model("colours-0")


def test_triton_asynchronous_requests(triton_client: Any, golden_pixels: Pixels, golden_logits: Logits) -> None:
    waiting = [triton_client.async_infer("colours-0", [triton_input(golden_pixels, "UINT8", binary=True)])]
    np.testing.assert_allclose(waiting[0].get_result().as_numpy("logits"), golden_logits, atol=1e-3)


# KServe's client


def kserve(call: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        try:
            return await call(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_kserve_health(server: Server) -> None:
    assert kserve(lambda client: client.is_server_live(server.url)) is True
    assert kserve(lambda client: client.is_server_ready(server.url)) is True
    assert kserve(lambda client: client.is_model_ready(server.url, "colours-0")) is True


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_tensors(server: Server, golden_pixels: Pixels, golden_logits: Logits, binary: bool) -> None:
    tensor = InferInput("pixels", list(golden_pixels.shape), "UINT8")
    tensor.set_data_from_numpy(golden_pixels, binary_data=binary)
    request = InferRequest(model_name="colours-0", infer_inputs=[tensor], request_id="eight")
    found = kserve(lambda client: client.infer(server.url, request, model_name="colours-0"))
    np.testing.assert_allclose(found.outputs[0].as_numpy(), golden_logits, atol=1e-3)
    assert found.id == "eight"


def test_kserve_asks_for_bytes(server: Server, golden_pixels: Pixels, golden_logits: Logits) -> None:
    tensor = InferInput("pixels", list(golden_pixels.shape), "UINT8")
    tensor.set_data_from_numpy(golden_pixels, binary_data=True)
    request = InferRequest("colours-0", [tensor], parameters={"binary_data_output": True})
    found = kserve(lambda client: client.infer(server.url, request, model_name="colours-0"))
    np.testing.assert_allclose(found.outputs[0].as_numpy(), golden_logits, atol=1e-3)


# A plain client


def test_picture_as_the_body(client: httpx.Client, red: bytes) -> None:
    found = client.post("/classify", params={"model": "colours-0"}, content=red)
    assert found.status_code == 200
    (prediction,) = found.json()["predictions"]
    assert (prediction["label"], prediction["index"], prediction["file"]) == ("red", 0, None)


def test_classify_says_what_predict_says(
    client: httpx.Client, tiny_bundle: Path, edgewright: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    picture = tiny_bundle / "golden" / "001.jpeg"
    found = client.post("/classify?model=colours-0", files={"file": (str(picture), picture.read_bytes())})
    (ours,) = found.json()["predictions"]
    (theirs,) = httpx.Response(200, text=edgewright("predict", tiny_bundle, picture, "--json").stdout).json()[
        "predictions"
    ]
    assert set(theirs) <= set(ours)
    assert set(theirs["timings_ms"]) <= set(ours["timings_ms"])
    assert [entry["label"] for entry in ours["top_k"]] == [entry["label"] for entry in theirs["top_k"]]
    assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
    assert ours["file"] == theirs["file"]


def test_form_with_several_pictures_of_which_one_is_none(client: httpx.Client, red: bytes) -> None:
    files = [("file", ("a.jpg", red)), ("file", ("b.jpg", b"no picture")), ("other", ("c.jpg", red))]
    found = client.post("/classify?model=colours-0&top_k=1", files=files)
    first, second, third = found.json()["predictions"]
    assert (first["file"], first["label"], len(first["top_k"])) == ("a.jpg", "red", 1)
    assert (second["file"], "label" in second) == ("b.jpg", False)
    assert "not a picture" in second["error"]
    assert (third["file"], third["label"]) == ("c.jpg", "red")


@pytest.mark.parametrize(
    ("query", "content", "headers", "status", "words"),
    [
        ("?model=colours-0", b"no picture", {}, 400, "not a picture"),
        ("?model=colours-0", b"", {}, 400, "is empty"),
        ("?model=unknown", b"x", {}, 404, "No model 'unknown'"),
        ("", b"x", {}, 400, "Several models are served"),
        ("?model=colours-0&top_k=0", b"x", {}, 400, "top_k is '0'"),
        ("?model=colours-0&top_k=many", b"x", {}, 400, "top_k is 'many'"),
        ("?model=colours-0", b"x", {"Content-Type": "multipart/form-data"}, 400, "form cannot be read"),
        ("?model=colours-0", b"x", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "form"),
        ("?model=colours-0", b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "holds no file"),
    ],
)
def test_upload_that_is_refused(
    client: httpx.Client, query: str, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    found = client.post(f"/classify{query}", content=content, headers=headers)
    assert found.status_code == status
    assert words in found.json()["error"]


def test_unknown_paths_and_methods_are_json(client: httpx.Client) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v2/", 404),
        ("GET", "/classify", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/models/colours-0/versions/2", 404),
        ("GET", "/v2/models/", 404),
    ):
        found = client.request(method, path)
        assert (found.status_code, list(found.json())) == (status, ["error"])


def test_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/").text
    assert "/v2/models/{model}/infer" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "src=" not in page


def test_metrics_count(server: Server, red: bytes) -> None:
    pictures = 'edgewright_pictures_total{model="colours-1"}'
    before = server.metric(pictures)
    with server.client() as client:
        client.post("/classify?model=colours-1", files=[("file", ("a", red)), ("file", ("b", red))])
    assert server.metric(pictures) == before + 2
    assert server.metric('edgewright_engines{model="colours-1"}') >= 1
    assert server.metric('edgewright_waiting_pictures{model="colours-1"}') == 0


# A token


@pytest.fixture(scope="module")
def guarded(tiny_bundle: Path) -> Iterator[Server]:
    """A server that asks for a token."""
    with running(tiny_bundle, EDGEWRIGHT_TOKEN="open-sesame") as found:
        yield found


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer open"}, {"Authorization": "open-sesame"}])
def test_wrong_token_is_refused(guarded: Server, red: bytes, header: dict[str, str]) -> None:
    with guarded.client(headers=header) as client:
        for found in (client.post("/classify", content=red), client.get("/v2"), client.get("/metrics")):
            assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")


def test_right_token_is_let_in(guarded: Server, red: bytes) -> None:
    with guarded.client(headers={"Authorization": "Bearer open-sesame"}) as client:
        assert client.post("/classify", content=red).json()["predictions"][0]["label"] == "red"


def test_health_needs_no_token(guarded: Server) -> None:
    with guarded.client() as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get("/v2/health/live").json() == {"live": True}
        assert "securitySchemes" in client.get("/openapi.json").json()["components"]
