"""A folder that runs as a Hugging Face Space: the bundles, a copy of what serves them, and three small files."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from edgewright.runtime.bundle import MANIFEST_FILE, open_bundle
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_directory

__all__ = ["export_space"]

_PACKAGES = ("runtime", "benchmarks", "demo")
"""What the page needs of edgewright, with their subpackages."""

_APP = '''"""The page; `python app.py` serves it."""

from pathlib import Path

from edgewright.demo.app import build_page
from edgewright.demo.models import open_models

models = open_models(sorted(Path(__file__).with_name("bundles").iterdir()))
page = build_page(models)

if __name__ == "__main__":
    # A Space is reached from outside its container.
    page.launch(server_name="0.0.0.0")
'''

_README = """---
title: {quoted}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
python_version: "{python}"
license: {licence}
pinned: false
---

# {title}

{labels}

Made with edgewright: `edgewright demo --export-space`. The page runs on the CPU, without PyTorch.
"""


def export_space(bundles: Sequence[Path], folder: Path) -> None:
    """Write the folder; it appears whole, or not at all.

    Raises:
        UsageError: there is something at `folder`.
        BundleError: no bundle.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"'{folder}' is not empty. Choose another folder for --export-space.")
    opened = [open_bundle(path) for path in bundles]
    with atomic_directory(folder) as new:
        names = set()
        for bundle in opened:
            # As the folder is called it comes into a path; what it is called to people is in its manifest.
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", bundle.manifest.name).strip("-") or "bundle"
            if name in names:
                raise UsageError(f"Two bundles are called '{bundle.manifest.name}'. Give one of them another name.")
            names.add(name)
            for file in (MANIFEST_FILE, *bundle.manifest.files):
                target = new / "bundles" / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path / file, target)
        _copy_packages(new / "edgewright")
        (new / "app.py").write_text(_APP)
        (new / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
        (new / "README.md").write_text(
            _readme(opened[0].manifest.name, opened[0].manifest.labels, opened[0].manifest.licence)
        )


def _copy_packages(target: Path) -> None:
    root = _folder("edgewright")
    target.mkdir(parents=True)
    for file in ("__init__.py", "version.py", "py.typed"):
        shutil.copyfile(root / file, target / file)
    for name in _PACKAGES:
        # Peers are for whoever measures edgewright itself.
        shutil.copytree(
            _folder(f"edgewright.{name}"), target / name, ignore=shutil.ignore_patterns("__pycache__", "peers")
        )


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _requirements() -> list[str]:
    """What the base install, OpenVINO and the page need, in the versions that are installed here."""
    wanted = []
    for line in metadata.requires("edgewright") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if "[" not in requirement and (extra is None or extra[1] in ("openvino", "demo")):
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert name is not None
            wanted.append(name[0])
    found = []
    for package in sorted(set(wanted)):
        try:
            found.append(f"{package}=={metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue  # an engine that is not here is not needed there either
    return found


def _readme(title: str, labels: Sequence[str], licence: str | None) -> str:
    plain = re.sub(r"[^\w .,()-]", " ", title).strip() or "Classifier"
    told = re.sub(r"[^A-Za-z0-9.-]", "", (licence or "").lower())
    return _README.format(
        title=plain,
        quoted=json.dumps(plain),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        gradio=metadata.version("gradio"),
        licence=told if told in ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0") else "other",
        labels="Labels: " + ", ".join(re.sub(r"[\\`*_{}\[\]<>#|\r\n]", " ", label) for label in labels),
    )
