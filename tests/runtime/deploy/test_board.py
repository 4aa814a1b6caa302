"""What a device says of itself, and the environment that fits it."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright.runtime.deploy.board import Board, board_of, choose_environment
from edgewright.runtime.deploy.deploy import slug_of
from edgewright.runtime.errors import DeployError
from edgewright.runtime.manifest import Manifest

PC = {
    "machine": "x86_64",
    "model": "",
    "l4t": "",
    "system": "Debian GNU/Linux 13 (trixie)",
    "tensorrt": None,
    "python": "/usr/bin/python3",
    "python_version": "3.13.5",
}
PI = {**PC, "machine": "aarch64", "model": "Raspberry Pi 5 Model B Rev 1.0", "python_version": "3.11.2"}
# As JetPack 6.2 and 7.1 have it in /etc/nv_tegra_release.
ORIN = {
    **PC,
    "machine": "aarch64",
    "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "l4t": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025",
    "tensorrt": "10.3.0",
    "python_version": "3.10.12",
}
THOR = {**ORIN, "model": "NVIDIA Jetson AGX Thor Developer Kit", "l4t": "# R38 (release), REVISION: 4.0, GCID: 1"}


@pytest.mark.parametrize(
    ("facts", "kind", "jetpack"),
    [(PC, "x86", None), (PI, "raspberry-pi", None), (ORIN, "jetson", "6"), (THOR, "jetson", "7")],
)
def test_kind_of_board(facts: dict[str, Any], kind: str, jetpack: str | None) -> None:
    board = board_of(facts)
    assert (board.kind, board.jetpack) == (kind, jetpack)


def test_board_without_a_name_is_called_by_its_system() -> None:
    assert board_of(PC).name == "Debian GNU/Linux 13 (trixie), x86_64"
    assert board_of({**PC, "machine": "aarch64"}).kind == "arm"


@pytest.mark.parametrize(("machine", "told"), [("armv7l", "32-bit"), ("riscv64", "riscv64"), ("i686", "32-bit")])
def test_machine_without_engines_is_refused(machine: str, told: str) -> None:
    with pytest.raises(DeployError, match=told):
        board_of({**PC, "machine": machine})


@pytest.fixture
def manifest(tiny_opened: Any) -> Manifest:
    found: Manifest = tiny_opened.manifest
    return found


def board(facts: dict[str, Any]) -> Board:
    return board_of(facts)


def test_openvino_only_where_the_bundle_has_it(manifest: Manifest) -> None:
    assert {artefact.backend for artefact in manifest.artefacts} == {"onnxruntime", "openvino"}
    assert choose_environment(board(PI), manifest).extras == ("openvino",)
    without = tuple(artefact for artefact in manifest.artefacts if artefact.backend == "onnxruntime")
    assert choose_environment(board(PI), manifest.model_copy(update={"artefacts": without})).extras == ()


@pytest.mark.parametrize(("facts", "cuda"), [(ORIN, ">=12,<13"), (THOR, ">=13,<14")])
def test_jetson_uses_the_system_s_tensorrt(manifest: Manifest, facts: dict[str, Any], cuda: str) -> None:
    chosen = choose_environment(board(facts), manifest)
    assert chosen.system_packages
    assert chosen.packages == (f"cuda-python{cuda}",)
    assert chosen.extras == ()


def test_jetson_without_tensorrt_is_a_plain_machine(manifest: Manifest) -> None:
    chosen = choose_environment(board({**ORIN, "tensorrt": None}), manifest)
    assert (chosen.system_packages, chosen.packages) == (False, ())


def test_service_needs_the_server_s_packages(manifest: Manifest) -> None:
    assert choose_environment(board(PI), manifest, service=True).extras == ("openvino", "serve")
    assert choose_environment(board(PI), manifest, ("serve",), service=True).extras == ("serve",)
    assert choose_environment(board(PI), manifest, ()).extras == ()


@pytest.mark.parametrize(
    ("name", "slug"),
    [("digits", "digits"), ("../up", "up"), ("a b/c", "a-b-c"), ("猫", "bundle-"), (".hidden", "hidden")],
)
def test_names_of_bundles_make_names_of_folders(name: str, slug: str) -> None:
    assert slug_of(name).startswith(slug)
    assert "/" not in slug_of(name)
