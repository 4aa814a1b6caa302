"""`edgewright demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgewright.runtime.console import emit_json, notice, warn
from edgewright.runtime.errors import UsageError
from edgewright.runtime.network import is_loopback

__all__ = ["demo_command"]


def demo_command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, as `edgewright export` writes them.")],
    host: Annotated[str, typer.Option(help="Address to listen at; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 7860,
    auth: Annotated[
        Optional[Path], typer.Option(help="A file with USER:PASSWORD lines; only these are let in.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Make it public for a week through Gradio's servers. Asks for --auth.")
    ] = False,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Labels with less count as not sure.")] = 0.0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    export_space: Annotated[
        Optional[Path], typer.Option(help="Write a folder that runs as a Hugging Face Space, and serve nothing.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout once it serves.")] = False,
) -> None:
    """Try bundles in a browser: classify, compare artefacts, measure, read what the model is."""
    from edgewright.runtime.extras import require

    require("demo", "gradio")
    if export_space is not None:
        from edgewright.demo.space import export_space as write_space

        write_space(bundles, export_space)
        notice(f"next: try it with  cd {export_space} && pip install -r requirements.txt && python app.py")
        if json:
            emit_json({"space": str(export_space)})
        return
    users = None if auth is None else read_users(auth)
    if share and users is None:
        raise UsageError("--share lets anybody in who has the address. Give --auth FILE as well.")
    from edgewright.demo.models import open_models

    models = open_models(bundles, min_score)
    try:
        from edgewright.demo.app import build_page

        page = build_page(models)
        try:
            _, url, public = page.launch(
                server_name=host,
                server_port=port or None,
                auth=users,
                share=share,
                inbrowser=open_browser,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UsageError(
                f"Port {port} on '{host}' cannot be used: {error}. Give another --port, or --host."
            ) from error
        if users is None and not is_loopback(host):
            warn(f"anyone who reaches {host} may use this page; --auth asks for a name and a password")
        notice(f"{public or url}    (Ctrl-C ends it)")
        if json:
            emit_json({"url": url, "public_url": public, "bundles": list(models)})
            print(end="", flush=True)
        page.blocks.block_thread()
    finally:
        for model in models.values():
            model.close()


def read_users(file: Path) -> list[tuple[str, str]]:
    """Names and passwords, one USER:PASSWORD in a line; in a file, because every user of a machine sees arguments.

    Raises:
        UsageError: the file cannot be read, or has something else in it.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read '{file}': {getattr(error, 'strerror', None) or 'it is no text'}.") from error
    users = [tuple(line.split(":", 1)) for line in lines]
    if not users or not all(len(user) == 2 and all(user) for user in users):
        raise UsageError(f"'{file}' has a line that is not USER:PASSWORD, or none at all.")
    if os.name == "posix" and file.stat().st_mode & 0o077:
        warn(f"others on this machine can read '{file}'; chmod 600 {file}")
    return [(name, password) for name, password in users]
