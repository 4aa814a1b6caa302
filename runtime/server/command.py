"""`edgewright serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgewright.runtime.command_options import DeviceOption
from edgewright.runtime.console import emit_json, notice, print_table, warn
from edgewright.runtime.errors import UsageError
from edgewright.runtime.network import TOKEN_VARIABLE, is_loopback

if TYPE_CHECKING:
    from edgewright.runtime.server.repository import Repository

__all__ = ["serve_command"]


def serve_command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, as `edgewright export` writes them.")],
    host: Annotated[
        Optional[str], typer.Option(help="Address to listen at. (default: 127.0.0.1, this machine)")
    ] = None,
    port: Annotated[Optional[int], typer.Option(help="Port; 0 for any that is free. (default: 8000)")] = None,
    token_file: Annotated[
        Optional[Path],
        typer.Option(help=f"File with the token that clients must show. (default: ${TOKEN_VARIABLE}, if it is set)"),
    ] = None,
    artefact: Annotated[Optional[str], typer.Option(help="Artefact of every bundle. (default: recommended)")] = None,
    backend: Annotated[Optional[str], typer.Option(help="Engine. (default: the artefact's)")] = None,
    device: DeviceOption = None,
    min_score: Annotated[
        Optional[float], typer.Option(help="Labels with less count as unknown, 0 to 1. (default: 0)")
    ] = None,
    workers: Annotated[Optional[int], typer.Option(help="Engines side by side. (default: cores / threads)")] = None,
    threads: Annotated[
        Optional[int], typer.Option(help="Threads of each engine; more answer one request sooner. (default: 1)")
    ] = None,
    max_batch: Annotated[
        Optional[int], typer.Option(help="Most pictures in a batch. (default: 1 on a CPU, 8 on a GPU)")
    ] = None,
    max_delay_ms: Annotated[
        Optional[float], typer.Option(help="How long a picture waits for others. (default: 0, for none)")
    ] = None,
    queue: Annotated[
        Optional[int], typer.Option(help="Pictures that may wait; more get 429. (default: 4 per engine, at least 8)")
    ] = None,
    deadline_ms: Annotated[
        Optional[float], typer.Option(help="Longest time in queue and engine; then 504. (default: 10000)")
    ] = None,
    drain_s: Annotated[
        Optional[float], typer.Option(help="Longest time to finish what was accepted, at the end. (default: 30)")
    ] = None,
    max_body_mb: Annotated[Optional[int], typer.Option(help="Largest request in MiB. (default: 32)")] = None,
    max_pixels: Annotated[Optional[int], typer.Option(help="Largest picture. (default: 64 million)")] = None,
    max_pictures: Annotated[Optional[int], typer.Option(help="Most pictures in a request. (default: 64)")] = None,
    config: Annotated[
        Optional[Path], typer.Option(help="YAML file with these options and further limits; flags win over it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout once it serves.")] = False,
) -> None:
    """Serve bundles over HTTP: Open Inference Protocol v2, plain uploads at /classify, metrics."""
    from edgewright.runtime.extras import require

    require("serve", "starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart")
    from edgewright.runtime.server.run import serve
    from edgewright.runtime.server.settings import ServeSettings
    from edgewright.runtime.settings import load_settings

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "artefact": artefact,
        "backend": backend,
        "device": device,
        "min_score": min_score,
        "workers": workers,
        "threads": threads,
        "max_batch": max_batch,
        "max_delay_ms": max_delay_ms,
        "queue": queue,
        "deadline_ms": deadline_ms,
        "drain_s": drain_s,
        "max_body_mb": max_body_mb,
        "max_pixels": max_pixels,
        "max_pictures": max_pictures,
    }
    settings = load_settings(ServeSettings, flags, config)
    token = _read_token(token_file)

    def started(url: str, repository: Repository) -> None:
        models = [
            {
                "name": model.manifest.name,
                "bundle": str(model.path),
                "artefact": model.classifier.artefact.name,
                "backend": model.classifier.backend_name,
                "device": model.classifier.execution.device,
                "workers": model.workers,
                "threads": settings.threads,
                "queue": model.batcher.rules.queue,
            }
            for model in repository.models
        ]
        if json:
            emit_json({"url": url, "models": models})
            # Whoever started this waits for the document, and stdout may be a pipe.
            print(end="", flush=True)
        columns = ("name", "artefact", "backend", "device", "workers", "threads", "queue")
        print_table(url, columns, [[model[column] for column in columns] for model in models])
        if token is None and not is_loopback(settings.host):
            warn(f"anyone who reaches {settings.host} may use this server; --token-file asks for a token")
        notice(f"next: curl --data-binary @photo.jpg {url}/classify    (or open {url} in a browser)")

    serve(bundles, settings, token, started)


def _read_token(file: Path | None) -> str | None:
    """The token from a file or from the environment: an argument would be seen by every user of the machine."""
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE)
        if token is None:
            return None
        origin = f"${TOKEN_VARIABLE}"
    else:
        origin = f"'{file}'"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Cannot read the token in {origin}: {error}") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"The token in {origin} is empty or no single word. Expected printable ASCII without spaces.")
    return token
