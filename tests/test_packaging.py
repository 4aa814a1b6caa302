"""What is packaged: the list in pyproject.toml, the folders on disk, the links for type checkers and the wheel agree."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import edgewright
from edgewright.runtime.deploy.wheel import build_wheel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # it comes with pytest there

ROOT = Path(__file__).resolve().parents[1]
ROOT_PACKAGE = "edgewright"
NOT_PACKAGED = {"tests", "docs"}

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository, not an unpacked archive")


def git(*arguments: str) -> list[str]:
    """Names that git prints, divided by NUL."""
    # A container's checkout may belong to another user; that is of no concern here.
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    found = subprocess.run(command, capture_output=True, check=True)
    return [name.decode() for name in found.stdout.split(b"\0") if name]


def files_on_disk() -> list[str]:
    """Every file that is tracked or could be, as others may be at work: what git ignores is not listed."""
    found = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in dict.fromkeys(found) if (ROOT / name).is_file()]


def setuptools_options() -> dict[str, Any]:
    options: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return options


def folders_with_modules() -> dict[str, str]:
    """Package name to folder, for each folder on disk with Python modules that belongs into the wheel."""
    modules = [Path(name) for name in files_on_disk() if name.endswith(".py")]
    folders = {
        path.parent
        for path in modules
        if len(path.parts) > 1 and path.parts[0] not in NOT_PACKAGED and not path.parts[0].startswith(".")
    }
    names = {folder: ".".join(folder.parts) for folder in folders}
    return {
        name if name == ROOT_PACKAGE else f"{ROOT_PACKAGE}.{name}": folder.as_posix() for folder, name in names.items()
    }


def files_of(package: str, folder: str, data: dict[str, list[str]]) -> set[str]:
    """What the wheel has to hold of one package, as names in the wheel."""
    patterns = ["*.py", *data.get(package, [])]
    found = {path for pattern in patterns for path in (ROOT / folder).glob(pattern) if path.is_file()}
    return {f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}" for path in found}


def test_every_folder_with_modules_is_a_package() -> None:
    assert sorted(setuptools_options()["packages"]) == sorted(folders_with_modules())


def test_every_package_is_mapped_to_its_folder() -> None:
    assert setuptools_options()["package-dir"] == folders_with_modules()


def test_every_package_has_an_init() -> None:
    assert [folder for folder in folders_with_modules().values() if not (ROOT / folder / "__init__.py").is_file()] == []


def test_weights_are_package_data() -> None:
    assert setuptools_options()["package-data"] == {
        "edgewright": ["py.typed"],
        "edgewright.demo": ["style.css"],
        "edgewright.train": ["weights/*"],
    }


def test_type_checkers_find_every_room_and_module() -> None:
    rooms = {folder for folder in folders_with_modules().values() if "/" not in folder and folder != ROOT_PACKAGE}
    modules = {path.name for path in (ROOT / ROOT_PACKAGE).iterdir() if path.suffix == ".py" or path.name == "py.typed"}
    assert {path.name for path in (ROOT / ".typing" / ROOT_PACKAGE).iterdir()} == rooms | modules


def test_links_for_type_checkers_lead_to_what_they_are_called() -> None:
    for link in (ROOT / ".typing" / ROOT_PACKAGE).iterdir():
        room = ROOT / link.name
        assert link.is_symlink()
        assert link.resolve() == (room if room.is_dir() else ROOT / ROOT_PACKAGE / link.name)


def test_lock_file_is_not_tracked() -> None:
    assert "uv.lock" not in git("ls-files", "-z")


def test_nothing_that_git_ignores_is_tracked() -> None:
    assert git("ls-files", "-z", "--cached", "--ignored", "--exclude-standard") == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of what git tracks or would track, so that nothing lands in the repository."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    for name in files_on_disk():
        if not name.startswith(".typing/"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    command = [uv, "build", "--wheel", "--quiet", "--out-dir", str(folder / "out"), str(folder / "source")]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = (folder / "out").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The files in the wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_the_packages_and_nothing_else(contents: set[str]) -> None:
    data = setuptools_options()["package-data"]
    expected = [files_of(package, folder, data) for package, folder in folders_with_modules().items()]
    assert contents == set().union(*expected)


def test_wheel_that_goes_to_a_device_is_the_same(wheel: Path, contents: set[str]) -> None:
    name, data = build_wheel()
    assert name == wheel.name
    with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(io.BytesIO(data)) as sent:
        assert {each for each in sent.namelist() if ".dist-info/" not in each} == contents
        assert all(sent.read(each) == built.read(each) for each in contents)


def test_wheel_is_typed(contents: set[str]) -> None:
    assert "edgewright/py.typed" in contents


def test_wheel_puts_one_name_into_site_packages(contents: set[str]) -> None:
    assert {name.partition("/")[0] for name in contents} == {"edgewright"}


def test_wheel_has_the_version_of_the_package(wheel: Path) -> None:
    assert wheel.name == f"edgewright-{edgewright.__version__}-py3-none-any.whl"


def test_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"edgewright-{edgewright.__version__}.dist-info/entry_points.txt").decode()
    assert "edgewright = edgewright.cli:main" in entry_points


def test_wheel_runs_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import edgewright.runtime.classifier as c; print(c.__file__)"
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == tmp_path / "edgewright" / "runtime" / "classifier.py"
