"""What the wheel's base install is on each Python and processor that it is for: resolved, unpacked, weighed, and run.

    uv run python tests/devices/base_install.py BUNDLE --python /usr/bin/python3.11 --out install.json

For Python 3.10 to 3.13 on x86-64 and aarch64, the base install and the extra `openvino` are resolved against the real package
index, wheels only; the base install is unpacked and its size held against the budget. mypy reads the runtime as each of these
Pythons. Each interpreter given with `--python` installs the wheel in an environment of its own, verifies the bundle
and labels one of its golden pictures. Exit status 1 if anything of this fails or is too big. Needs uv, git and the network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("aarch64", "x86_64")
# The base install goes on any system with glibc 2.28 (Debian 10, Ubuntu 18.10); OpenVINO's wheel for aarch64 asks for 2.35
# (Debian 12, Ubuntu 22.04), for x86-64 for 2.28.
BASE_LIBC, OPENVINO_LIBC = "manylinux_2_28", {"aarch64": "manylinux_2_35", "x86_64": "manylinux_2_28"}
BUDGET_MB = 150.0
# Where an older Python gets older and bigger packages, the budget only holds what is there: NumPy 2.4 on 3.11 is 4 MB bigger than
# 2.5, and on 3.10 the last ONNX Runtime still brings SymPy, 30 MB. x86-64 gets a bigger ONNX Runtime and OpenBLAS.
ALLOWED_MB = {
    ("aarch64", "3.10"): 170.0,
    ("aarch64", "3.11"): 156.0,
    ("aarch64", "3.12"): BUDGET_MB,
    ("aarch64", "3.13"): BUDGET_MB,
    ("x86_64", "3.10"): 184.0,
    ("x86_64", "3.11"): 168.0,
    ("x86_64", "3.12"): 164.0,
    ("x86_64", "3.13"): 164.0,
}


def allowed_mb(machine: str, python: str) -> float:
    """A Python that is newer than all of these gets what the newest of them gets."""
    kind = "aarch64" if machine.lower() in {"aarch64", "arm64"} else "x86_64"
    return ALLOWED_MB.get((kind, python), ALLOWED_MB[kind, PYTHONS[-1]])


@dataclass(frozen=True)
class Install:
    """The wheel on one Python and processor. `largest_mb` are the top folders in site-packages above 1 MB."""

    machine: str
    python: str
    base_mb: float | None
    allowed_mb: float
    largest_mb: dict[str, float]
    resolved: dict[str, bool]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """The wheel in an environment of one interpreter."""

    python: str
    base_mb: float
    bytecode_mb: float
    verified: bool
    label: str | None
    problems: list[str] = field(default_factory=list)


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, cwd=ROOT)


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[-500:]


def build_wheel(folder: Path) -> Path:
    """From a copy of what git tracks, as what an earlier build left in the repository would get into the wheel."""
    names = call("git", "-c", "safe.directory=*", "ls-files", "-z").stdout.split("\0")
    for name in names:
        if name and not name.startswith(".typing/") and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    done = call("uv", "build", "--wheel", "--quiet", "--out-dir", folder, folder / "source")
    if done.returncode:
        raise SystemExit(f"The wheel could not be built: {last_words(done)}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def megabytes(folder: Path, *, bytecode: bool = False) -> float:
    """What the files in a folder hold, in MB (10^6 bytes): the bytecode, or all else."""
    if folder.is_file():
        return folder.stat().st_size / 1e6
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files if (file.suffix == ".pyc") == bytecode) / 1e6


def install_for(wheel: Path, machine: str, python: str, folder: Path) -> Install:
    """Unpack the base install as that Python on that processor would get it, and resolve the extra."""
    problems = []
    common = ("uv", "pip", "install", "--python-version", python, "--only-binary", ":all:", "--quiet")
    base, newer = (f"{machine}-{libc}" for libc in (BASE_LIBC, OPENVINO_LIBC[machine]))
    done = call(*common, "--python-platform", base, "--target", folder, wheel)
    nowhere = folder.with_name(f"{folder.name}-openvino")
    extra = call(*common, "--python-platform", newer, "--dry-run", "--target", nowhere, f"{wheel}[openvino]")
    for name, each in (("base", done), ("openvino", extra)):
        if each.returncode:
            problems.append(f"{name}: {last_words(each)}")
    allowed, size = allowed_mb(machine, python), None
    largest: dict[str, float] = {}
    if not done.returncode:
        size = round(megabytes(folder), 1)
        sizes = {path.name: round(megabytes(path), 1) for path in folder.iterdir()}
        largest = {name: mb for name, mb in sorted(sizes.items(), key=lambda item: -item[1]) if mb >= 1}
        if size >= allowed:
            problems.append(f"the base install has {size} MB; less than {allowed:.0f} MB is allowed")
    resolved = {"base": not done.returncode, "openvino": not extra.returncode}
    return Install(machine, python, size, allowed, largest, resolved, problems)


def run_with(interpreter: str, wheel: Path, bundle: Path, folder: Path) -> Run:
    """Install the wheel for one interpreter, verify the bundle, label a picture."""
    done = call("uv", "venv", "--quiet", "--python", interpreter, folder)
    python = folder / "bin" / "python"
    if not done.returncode:
        done = call("uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, wheel)
    if done.returncode:
        return Run(interpreter, 0.0, 0.0, False, None, [last_words(done)])
    told = call(python, "-c", "import platform as p; print(p.python_version(), p.machine())")
    version, machine = told.stdout.split()
    (packages,) = (folder / "lib").glob("python*/site-packages")
    problems = []
    verify = call(folder / "bin" / "edgewright", "verify", bundle, "--json")
    verified = verify.returncode == 0 and json.loads(verify.stdout)["passed"] is True
    if not verified:
        problems.append(f"verify: {last_words(verify)}")
    picture = sorted((bundle / "golden").glob("*.png"))[0]
    predict = call(folder / "bin" / "edgewright", "predict", bundle, picture, "--json")
    label = None if predict.returncode else json.loads(predict.stdout)["predictions"][0]["label"]
    if label is None:
        problems.append(f"predict: {last_words(predict)}")
    size, bytecode = (round(megabytes(packages, bytecode=each), 1) for each in (False, True))
    allowed = allowed_mb(machine, ".".join(version.split(".")[:2]))
    if size >= allowed:
        problems.append(f"the base install has {size} MB; less than {allowed:.0f} MB is allowed")
    return Run(version, size, bytecode, verified, label, problems)


def type_problems() -> Iterator[tuple[str, str | None]]:
    """Each Python's version, and what mypy says of the runtime as that Python; None if nothing."""
    for python in PYTHONS:
        done = call(sys.executable, "-m", "mypy", "--python-version", python, "--package", "edgewright.runtime")
        yield python, last_words(done) if done.returncode else None


def main() -> int:
    """Do all of it; print a table and write the document."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument(
        "bundle", type=Path, help="with PNG pictures, such as the one that `edgewright quickstart` makes"
    )
    words.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter to run it with")
    words.add_argument("--out", type=Path, help="write one JSON document here")
    words.add_argument("--only-run", action="store_true", help="only what --python asks for")
    options = words.parse_args()
    bundle = options.bundle.resolve()
    if not list((bundle / "golden").glob("*.png")):
        words.error(f"'{bundle}' has no golden pictures as PNG; give the bundle that `edgewright quickstart` makes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        installs = []
        for machine in () if options.only_run else MACHINES:
            for python in PYTHONS:
                one = install_for(wheel, machine, python, folder / machine / python)
                installs.append(one)
                print(f"{machine} {python}: {one.base_mb} MB, allowed {one.allowed_mb:.0f}; {one.problems or 'passed'}")
        runs = []
        for number, interpreter in enumerate(options.python):
            runs.append(run_with(interpreter, wheel, bundle, folder / f"environment-{number}"))
            ran = runs[-1]
            print(
                f"run on {ran.python}: {ran.base_mb} MB and {ran.bytecode_mb} MB of bytecode, {ran.problems or 'passed'}"
            )
    types: dict[str, str | None] = {}
    for python, problem in () if options.only_run else type_problems():
        types[python] = problem
        print(f"mypy as {python}: {problem or 'passed'}")
    document = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "budget_mb": BUDGET_MB,
        "installs": [asdict(one) for one in installs],
        "runs": [asdict(one) for one in runs],
        "types": types,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    failed = any(one.problems for one in installs) or any(one.problems for one in runs) or any(types.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
