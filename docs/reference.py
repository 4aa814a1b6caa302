"""Writes the reference of the public API, from docstrings: `python docs/reference.py build/reference`."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pdoc

MODULES = (
    "edgewright",
    "edgewright.runtime.backends",
    "edgewright.runtime.bundle",
    "edgewright.runtime.classifier",
    "edgewright.runtime.errors",
    "edgewright.runtime.golden",
    "edgewright.runtime.images",
    "edgewright.runtime.loading",
    "edgewright.runtime.manifest",
    "edgewright.runtime.pipeline",
    "edgewright.runtime.preprocess",
    "edgewright.runtime.sources",
    "edgewright.runtime.verify",
    "edgewright.export.config",
    "edgewright.export.exporter",
    "edgewright.train.config",
    "edgewright.train.run",
    "edgewright.train.trainer",
    "edgewright.benchmarks.bench",
    "edgewright.benchmarks.tuning",
)


def main(folder: Path) -> None:
    """Import what is public, and write a page for each module and an index to `folder`."""
    # `edgewright` imports its names on first use, and pdoc does not use them.
    package = importlib.import_module("edgewright")
    vars(package).update({name: getattr(package, name) for name in package.__all__})
    # Aliases of types that exist for type checkers only are shown by their names.
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
