"""The command line: one app; each stage owns its own command functions."""

from __future__ import annotations

import io
import os
import sys

import typer

from edgewright.benchmarks.commands import bench_app
from edgewright.benchmarks.tune_command import tune_command
from edgewright.demo.command import demo_command
from edgewright.export.commands import export_command
from edgewright.quickstart import quickstart_command
from edgewright.runtime.commands import val_command, verify_command
from edgewright.runtime.compile_command import compile_command
from edgewright.runtime.deploy.command import deploy_command
from edgewright.runtime.errors import EdgewrightError
from edgewright.runtime.predict_command import predict_command
from edgewright.runtime.server.command import serve_command
from edgewright.train.audit.commands import audit_command
from edgewright.train.backbones.commands import backbones_command, summary_command
from edgewright.train.commands import train_command
from edgewright.train.data.commands import data_app
from edgewright.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    help="From a folder of images to a verified, quantized, benchmarked classifier on an edge device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


app.command("quickstart")(quickstart_command)
app.command("backbones")(backbones_command)
app.command("summary")(summary_command)
app.add_typer(data_app, name="data")
app.command("train")(train_command)
app.command("audit")(audit_command)
app.command("export")(export_command)
app.command("compile")(compile_command)
app.command("verify")(verify_command)
app.command("val")(val_command)
app.command("predict")(predict_command)
app.add_typer(bench_app, name="bench")
app.command("tune")(tune_command)
app.command("serve")(serve_command)
app.command("demo")(demo_command)
app.command("deploy")(deploy_command)


def main() -> None:
    """Entry point: an EdgewrightError becomes one message and its exit status, an interrupt 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A label or a file name that the terminal's encoding lacks is shown escaped, and never stops the work.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except EdgewrightError as error:
        print(f"edgewright: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print(
            "edgewright: interrupted; `train` and `predict --out` go on with --resume, anything else with the same command",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone, as in `edgewright … | head`; nothing is left to say, and nobody to hear it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # The system refused: disk full, no permission, a name too long.
        where = f" '{error.filename}'" if error.filename else ""
        print(f"edgewright: {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(EdgewrightError.exit_status)


if __name__ == "__main__":
    main()
