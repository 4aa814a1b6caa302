"""Whether two measurements of the same thing agree as closely as they say.

    python -m edgewright.benchmarks.peers.repeatability BUNDLE [--json]

`edgewright bench` is run twice in a row, each time as a process of its own, again and again: the difference of the medians should
lie within its own 95 % interval in nine of ten tries, on a machine with nothing else to do. What bench itself found doubtful of
a run stands beside it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgewright.benchmarks.compare import compare_documents
from edgewright.benchmarks.document import BenchDocument
from edgewright.benchmarks.peers.sides import machine, run_script
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, notice, print_table
from edgewright.runtime.errors import EdgewrightError
from edgewright.runtime.parallel import available_cores

__all__ = ["repeat"]


def _measured(bundle: Path, artefact: str, seconds: float) -> BenchDocument:
    command = [sys.executable, "-W", "ignore", "-m", "edgewright", "bench", str(bundle), "--artefact", artefact]
    command += ["--threads", str(available_cores()), "--batch", "1", "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise EdgewrightError(f"`edgewright bench` ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return BenchDocument.model_validate_json(done.stdout)


def repeat(bundle: Path, artefact: str, *, tries: int, seconds: float) -> dict[str, Any]:
    """Measure twice in a row, `tries` times.

    Returns:
        `within`: the share of pairs whose difference their interval explains; `tries`, and each pair.
    """
    found: list[dict[str, Any]] = []
    for number in range(tries):
        a, b = (_measured(bundle, artefact, seconds) for _ in range(2))
        (difference,) = [each for each in compare_documents(a, b).differences if each.percentile == "p50"]
        found.append(
            {
                "a_ms": difference.a_ms,
                "b_ms": difference.b_ms,
                "low_ms": difference.low_ms,
                "high_ms": difference.high_ms,
                "within": not difference.significant,
                "findings": [*(a.findings or ()), *(b.findings or ())],
            }
        )
        notice(f"  {number + 1} of {tries}: {sum(each['within'] for each in found)} of {len(found)} agree")
    return {"within": sum(each["within"] for each in found) / len(found), "tries": len(found), "differences": found}


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    artefact: Annotated[Optional[str], typer.Option(help="Of the bundle. (default: the recommended one)")] = None,
    tries: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each run.")] = 8.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure again and again, and count how often two runs agree."""
    facts = machine()
    named = artefact or open_bundle(bundle).manifest.recommended
    document = repeat(bundle, named, tries=tries, seconds=seconds)
    if json:
        emit_json({**document, "device": facts})
    print_table(
        f"{named}: {document['within']:.0%} of {document['tries']} pairs agree",
        ("p50 ms", "then", "difference", "its interval", ""),
        [
            (
                f"{row['a_ms']:.3f}",
                f"{row['b_ms']:.3f}",
                f"{row['b_ms'] - row['a_ms']:+.3f}",
                f"{row['low_ms']:+.3f} to {row['high_ms']:+.3f}",
                ("within" if row["within"] else "beyond") + (", doubtful" if row["findings"] else ""),
            )
            for row in document["differences"]
        ],
    )


if __name__ == "__main__":
    run_script(main)
