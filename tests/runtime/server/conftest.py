"""Real servers in processes of their own, on real sockets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

FAULTY = Path(__file__).with_name("faulty_server.py")
START_S = 60


@dataclass
class Server:
    """A server that runs: its process, where it listens, and what it printed on stderr."""

    process: subprocess.Popen[str]
    url: str
    document: dict[str, Any]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def client(self, **options: Any) -> httpx.Client:
        """A client of its own."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options)

    def metric(self, line: str) -> float:
        """The value of a metric, by its name with labels as they are printed; 0 if it is not there."""
        with self.client() as client:
            found = [text for text in client.get("/metrics").text.splitlines() if text.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


@contextlib.contextmanager
def running(*arguments: str | Path, script: Path | None = None, **environment: str) -> Iterator[Server]:
    """`edgewright serve ARGUMENTS` on a free port, until the block ends."""
    start = ["-m", "edgewright"] if script is None else [str(script)]
    command = [sys.executable, *start, "serve", *map(str, arguments), "--port", "0", "--json"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        with log.open("w") as stream:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stream, text=True, env=own | environment, encoding="utf-8"
            )
        try:
            document = read_document(process, log)
            yield Server(process, document["url"], document, log)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def read_document(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """The JSON that the server prints when it takes requests."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        with contextlib.suppress(ValueError):
            document: dict[str, Any] = json.loads(text)
            return document
    raise AssertionError(f"the server ended with {process.wait(START_S)}: {log.read_text()}")


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def uniform(value: int, form: str = "PNG") -> bytes:
    """A picture of one grey; those of 253, 254 and 255 make the faulty engine slow, hang and fail."""
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), value, dtype=np.uint8)).save(stream, form)
    return stream.getvalue()


@pytest.fixture(scope="session")
def server(tiny_bundle: Path, other_bundle: Path) -> Iterator[Server]:
    """Serves `colours-0` and `colours-1` as they come."""
    with running(tiny_bundle, other_bundle) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with server.client() as found:
        yield found


@pytest.fixture(scope="session")
def red(paint: Callable[..., Image.Image]) -> bytes:
    """A JPEG that is labelled red."""
    stream = io.BytesIO()
    paint("red", 5, (64, 48)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def faulty(tiny_bundle: Path) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """`with faulty("--deadline-ms", "500") as server`: ONNX Runtime, but slow, hanging or failing on some pictures."""

    def start(*arguments: str) -> contextlib.AbstractContextManager[Server]:
        return running(tiny_bundle, "--artefact", "model.fp32", *arguments, script=FAULTY)

    return start
