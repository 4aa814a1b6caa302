"""Pictures a second through `edgewright serve`, against the same runtime without a server and against LitServe.

    python -m edgewright.benchmarks.peers.serving BUNDLE [--data DATA] [--json]

Clients are a process of their own on the same machine, as are the servers; all ways take turns, medians are compared. Then
the server gets as many pictures as it can answer, and twice as many: what is admitted should not take much longer, and what
is refused should be refused at once. At the end its memory is watched over many requests.

LitServe is measured if --litserve-python names an interpreter that has it, and edgewright:

    uv venv lit-env && VIRTUAL_ENV=lit-env uv pip install litserve python-multipart .
    python -m edgewright.benchmarks.peers.serving BUNDLE --litserve-python lit-env/bin/python

With torchvision in that environment there is a second LitServe, which labels as its documentation's examples do, with eager
PyTorch: the first one, with our own classifier inside, compares the servers alone.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Optional
from urllib.parse import urlsplit

import numpy as np
import typer

from edgewright.benchmarks.peers.own_server import own_server, resident_mb
from edgewright.benchmarks.peers.sides import Side, machine, pictures_of, run_script
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.parallel import available_cores

__all__ = ["compare_servers"]

_WARM_REQUESTS = 2000
_START_S = 60.0


@contextlib.contextmanager
def _litserve(python: Path, bundle: Path, artefact: str) -> Iterator[str]:
    """LitServe with as many workers as there are cores: its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("litserve_server.py"))
    command = [str(python), "-W", "ignore", script, str(bundle), artefact, str(available_cores()), str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as process:  # noqa: S603 - the interpreter that the user names
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + _START_S
            while not _answers(f"{url}/health"):
                if process.poll() is not None or time.monotonic() > end:
                    raise UsageError(f"LitServe did not start with '{python}'; see above.")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _clients(url: str, path: str, pictures: list[str], **how: Any) -> dict[str, Any]:
    """What clients in a process of their own find, see :mod:`edgewright.benchmarks.peers.serving_clients`."""
    address = urlsplit(url)
    request = {"host": address.hostname, "port": address.port, "path": path, "pictures": pictures, **how}
    return Side("clients", [sys.executable, "-m", "edgewright.benchmarks.peers.serving_clients"], request).run()


def _throughput(found: dict[str, Any]) -> float:
    """Answers a second.

    Raises:
        UsageError: one was no answer.
    """
    statuses = {status for status, _ in found["answers"]}
    if statuses != {200}:
        raise UsageError(f"A server answered with {sorted(statuses)}; expected 200 alone.")
    return len(found["answers"]) / float(found["seconds"])


def _litserve_throughput(url: str, pictures: list[str], closed: dict[str, Any]) -> float:
    return _throughput(_clients(url, "/predict", pictures, field="file", **closed))


def _has_torchvision(python: Path) -> bool:
    return subprocess.run([str(python), "-c", "import torchvision"], capture_output=True, check=False).returncode == 0  # noqa: S603 - named by the user


def _overload(url: str, pictures: list[str], rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds of what is admitted and of what is refused at `rate` pictures a second."""
    found = _clients(url, "/classify", pictures, do="open", rate=rate, seconds=seconds)
    admitted = [ms for status, ms in found["answers"] if status == 200]
    refused = [ms for status, ms in found["answers"] if status == 429]
    others = sorted({status for status, _ in found["answers"]} - {200, 429})
    if others or not admitted:
        raise UsageError(f"Under load the server answered with {others or 'refusals alone'}; expected 200 and 429.")
    return {
        "offered_per_s": rate,
        "admitted": len(admitted),
        "admitted_p50_ms": float(np.median(admitted)),
        "admitted_p99_ms": float(np.percentile(admitted, 99)),
        "refused": len(refused),
        "refused_p50_ms": float(np.median(refused)) if refused else None,
        "refused_p99_ms": float(np.percentile(refused, 99)) if refused else None,
    }


def compare_servers(
    bundle: Path,
    pictures: list[str],
    *,
    artefact: str,
    clients: int,
    rounds: int,
    seconds: float,
    requests: int,
    litserve_python: Path | None,
) -> dict[str, Any]:
    """Throughput of each way in pictures a second, their ratios, latencies under load, and memory."""
    closed = {"do": "closed", "clients": clients, "seconds": seconds}
    with contextlib.ExitStack() as stack:
        url, pid = stack.enter_context(own_server("serve", str(bundle), "--artefact", artefact))
        classifier = stack.enter_context(load(bundle, artefact, threads=1, streams=available_cores()))

        def in_process() -> float:
            started = time.perf_counter()
            deque(classifier.stream(pictures), maxlen=0)
            return len(pictures) / (time.perf_counter() - started)

        ways: dict[str, Callable[[], float]] = {
            "in_process": in_process,
            "ours": lambda: _throughput(_clients(url, "/classify", pictures, **closed)),
        }
        if litserve_python is not None:
            for name, model in (("litserve", artefact), ("litserve_eager_torch", "eager")):
                if model != "eager" or _has_torchvision(litserve_python):
                    other = stack.enter_context(_litserve(litserve_python, bundle, model))
                    ways[name] = partial(_litserve_throughput, other, pictures, closed)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                samples[name].append(way())
            notice(f"round {number}: " + ", ".join(f"{name} {found[-1]:.0f}/s" for name, found in samples.items()))
        # The first round warms everything up.
        rates = {name: median(found[1:]) for name, found in samples.items()}
        load_s = 2 * seconds
        capacity = rates["ours"]
        at_capacity, at_twice = (_overload(url, pictures, factor * capacity, load_s) for factor in (1, 2))
        memory = _memory(url, pid, pictures, clients, requests)
    document: dict[str, Any] = {
        "images_per_s": rates,
        "ratios": {name: rates["ours"] / rate for name, rate in rates.items() if name != "ours"},
        "at_capacity": at_capacity,
        "at_twice_the_capacity": at_twice,
        "p99_ratio": at_twice["admitted_p99_ms"] / at_capacity["admitted_p99_ms"],
        "memory": memory,
        "artefact": artefact,
        "clients": clients,
        "pictures": len(pictures),
    }
    return document


def _memory(url: str, pid: int, pictures: list[str], clients: int, requests: int) -> dict[str, Any] | None:
    """The server's resident memory before and after `requests` requests, in MB; None where it cannot be told."""
    if sys.platform != "linux":
        return None
    how = {"do": "closed", "clients": clients, "seconds": 1e9}
    _clients(url, "/classify", pictures, requests=_WARM_REQUESTS, **how)
    before = resident_mb(pid)
    done = _clients(url, "/classify", pictures, requests=requests, **how)
    after = resident_mb(pid)
    assert before is not None
    assert after is not None
    return {"requests": len(done["answers"]), "before_mb": before, "after_mb": after, "growth": after / before - 1}


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    data: Annotated[
        Optional[Path], typer.Option(help="A folder with JPEG files. (default: ../shared/data/clothing)")
    ] = None,
    artefact: Annotated[Optional[str], typer.Option(help="Of the bundle. (default: the recommended one)")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="How many files, evenly spread.")] = 400,
    clients: Annotated[int, typer.Option(min=1, help="Connections that send pictures one after the other.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a turn.")] = 5.0,
    requests: Annotated[int, typer.Option(min=100, help="Over which memory is watched.")] = 10_000,
    litserve_python: Annotated[
        Optional[Path], typer.Option(help="Also LitServe, with this interpreter of an environment that has it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure all ways."""
    facts = machine()
    document = compare_servers(
        bundle,
        pictures_of(data, pictures),
        artefact=artefact or open_bundle(bundle).manifest.recommended,
        clients=clients,
        rounds=rounds,
        seconds=seconds,
        requests=requests,
        litserve_python=litserve_python,
    )
    if json:
        emit_json({**document, "device": facts})
    ratios = {"ours": 1.0, **document["ratios"]}
    print_table(
        f"{clients} clients, {document['artefact']}",
        ("way", "pictures/s", "ours is"),
        [(name, f"{rate:.1f}", f"{ratios[name]:.2f} of it") for name, rate in document["images_per_s"].items()],
    )
    loads = {"capacity": document["at_capacity"], "twice that": document["at_twice_the_capacity"]}
    print_table(
        f"under load: p99 of what is admitted grows {document['p99_ratio']:.2f} times",
        ("offered", "pictures/s", "admitted", "p50 ms", "p99 ms", "refused", "p50 ms", "p99 ms"),
        [
            (
                name,
                f"{row['offered_per_s']:.0f}",
                str(row["admitted"]),
                f"{row['admitted_p50_ms']:.1f}",
                f"{row['admitted_p99_ms']:.1f}",
                str(row["refused"]),
                *("–" if row[key] is None else f"{row[key]:.1f}" for key in ("refused_p50_ms", "refused_p99_ms")),
            )
            for name, row in loads.items()
        ],
    )
    if memory := document["memory"]:
        notice(
            f"memory after {memory['requests']:,} requests: {memory['before_mb']:.0f} -> {memory['after_mb']:.0f} MB, "
            f"{memory['growth']:+.1%}"
        )


if __name__ == "__main__":
    run_script(main)
