"""What surrounds the code agrees with it: version, Pythons, licences, hooks, links between documents."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edgewright

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # it comes with pytest there

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository, not an unpacked archive")


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    found = subprocess.run(
        [*command, "--exclude-standard", "--", *patterns], capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in sorted(set(found.stdout.split("\0"))) if name and not name.startswith(".typing/")]
    return [path for path in paths if path.is_file()]


def base_requirements() -> set[str]:
    """What `pip install edgewright` brings on this Python, by the installed packages' metadata."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in project()["dependencies"]]
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name not in found:
            found.add(name)
            needed = [Requirement(each) for each in metadata.requires(name) or ()]
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def test_version_stands_in_one_place() -> None:
    assert project()["dynamic"] == ["version"]
    assert "version" not in project()
    set_here = [
        path for path in tracked("*.py") if re.search(r"(?m)^__version__ *[:=]", path.read_text(encoding="utf-8"))
    ]
    assert set_here == [ROOT / "edgewright" / "version.py"]


def test_version_is_unreleased_or_in_the_changelog() -> None:
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert headings[0] == "Unreleased"
    released = [heading.split(" ")[0] for heading in headings[1:]]
    assert released == [] or edgewright.__version__ == released[0]


def test_pythons_of_the_classifiers_are_those_that_are_tried() -> None:
    prefix = "Programming Language :: Python :: 3."
    told = [f"3.{name.removeprefix(prefix)}" for name in project()["classifiers"] if name.startswith(prefix)]
    assert tuple(told) == PYTHONS
    assert project()["requires-python"] == f">={PYTHONS[0]}"
    tried = (ROOT / "tests" / "devices" / "base_install.py").read_text(encoding="utf-8")
    assert f"PYTHONS = {PYTHONS}".replace("'", '"') in tried


def test_licences_of_all_that_a_device_installs_are_told() -> None:
    """On Python 3.10 four more, which have a table of their own."""
    first, second = re.findall(
        r"(?ms)^\|-.*?\n((?:\|.*?\n)+)", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    )
    told = {canonicalize_name(line.split("|")[1].strip()) for line in first.splitlines()}
    if sys.version_info < (3, 11):
        told |= {canonicalize_name(line.split("|")[1].strip()) for line in second.splitlines()}
    assert base_requirements() == told


def test_hooks_are_the_project_s_own_tools() -> None:
    """So that they have the versions of the environment, and nothing is fetched."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [each["repo"] for each in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert all(entry.startswith("uv run ") or (ROOT / entry).is_file() for entry in entries)
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for entry in ("uv run ruff check", "uv run ruff format", "uv run mypy", ".ci/imports"):
        assert any(hook.startswith(entry) for hook in entries)
        assert entry in gate


@pytest.mark.parametrize("name", ["bug", "feature", "config"])
def test_forms_for_issues_can_be_read(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    if name == "config":
        assert form == {"blank_issues_enabled": True}
    else:
        assert {"name", "description", "body"} <= set(form)
        identities = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(identities) == len(set(identities))


def test_scripts_are_bash_that_stops_at_errors() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash, which is not installed here")
    scripts = [*tracked("*.sh"), ROOT / ".ci" / "run", ROOT / ".ci" / "imports"]
    assert len(scripts) >= 3
    for script in scripts:
        assert script.stat().st_mode & 0o111, script
        assert "\nset -euo pipefail\n" in script.read_text(encoding="utf-8"), script
        subprocess.run([bash, "-n", script], check=True)
