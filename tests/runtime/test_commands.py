"""The command line of a device, each time in a process of its own: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

Completed = subprocess.CompletedProcess[str]
Edgewright = Callable[..., Completed]
Paint = Callable[..., Image.Image]
Document = dict[str, Any]
LABELS = ("red", "green", "blue", "très noir")
ONNX = ("--artefact", "model.fp32")


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    """Two pictures of each class, in a folder per class."""
    root = tmp_path_factory.mktemp("album")
    for label in LABELS:
        (root / label).mkdir()
        for number in range(2):
            paint(label, number).save(root / label / f"{number}.png")
    return root


@pytest.fixture
def tampered(tiny_copy: Path) -> Path:
    """A bundle with one byte exchanged."""
    file = tiny_copy / "golden" / "000.rgb"
    first, *others = file.read_bytes()
    file.write_bytes(bytes([first ^ 1, *others]))
    return tiny_copy


def one_document(found: Completed, status: int = 0) -> Document:
    """The JSON that is all of stdout."""
    assert found.returncode == status, found.stderr
    document: Document = json.loads(found.stdout)
    return document


def assert_one_message(found: Completed, contains: str, status: int = 2) -> None:
    assert found.returncode == status, found.stderr
    assert found.stderr.startswith("edgewright: ")
    assert found.stderr.count("edgewright: ") == 1
    assert contains in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


# What `--json` promises


@pytest.fixture(scope="session")
def verified(edgewright: Edgewright, tiny_bundle: Path) -> Document:
    return one_document(edgewright("verify", tiny_bundle, "--json"))


def test_verify_says_that_all_passed(verified: Document) -> None:
    assert verified["passed"] is True


def test_verify_has_the_contract_s_keys(verified: Document) -> None:
    wanted = {"name", "passed", "tensor_max_abs_diff", "max_abs_logit_diff"}
    assert [wanted - set(entry) for entry in verified["artefacts"]] == [set(), set()]


def test_verify_tries_every_artefact(verified: Document) -> None:
    assert [(entry["name"], entry["passed"]) for entry in verified["artefacts"]] == [
        ("openvino.fp32", True),
        ("model.fp32", True),
    ]


@pytest.fixture(scope="session")
def evaluated(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> Document:
    return one_document(edgewright("val", tiny_bundle, album, "--json"))


def test_val_has_the_contract_s_keys(evaluated: Document) -> None:
    wanted = {"name", "images", "top1", "top5", "seconds"}
    assert [wanted - set(entry) for entry in evaluated["artefacts"]] == [set(), set()]


def test_val_counts(evaluated: Document) -> None:
    counted = [(entry["name"], entry["images"], entry["top1"], entry["top5"]) for entry in evaluated["artefacts"]]
    assert counted == [("openvino.fp32", 8, 1.0, 1.0), ("model.fp32", 8, 1.0, 1.0)]


@pytest.fixture(scope="session")
def predicted(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> Document:
    return one_document(edgewright("predict", tiny_bundle, album / "blue" / "1.png", album / "très noir", "--json"))


def test_predict_has_the_contract_s_keys(predicted: Document) -> None:
    wanted = {"file", "label", "index", "score", "top_k", "timings_ms"}
    assert [wanted - set(entry) for entry in predicted["predictions"]] == [set()] * 3


def test_predict_labels_files_and_folders(predicted: Document, album: Path) -> None:
    assert [(entry["file"], entry["label"], entry["index"]) for entry in predicted["predictions"]] == [
        (str(album / "blue" / "1.png"), "blue", 2),
        (str(album / "très noir" / "0.png"), "très noir", 3),
        (str(album / "très noir" / "1.png"), "très noir", 3),
    ]


def test_predict_ranks_labels(predicted: Document) -> None:
    ranked = predicted["predictions"][0]["top_k"]
    assert sorted(entry["label"] for entry in ranked) == sorted(LABELS)
    assert sum(entry["score"] for entry in ranked) == pytest.approx(1)


def test_predict_times_every_stage(predicted: Document) -> None:
    stages = {"decode", "preprocess", "inference", "postprocess"}
    assert [set(entry["timings_ms"]) for entry in predicted["predictions"]] == [stages] * 3


@pytest.fixture(scope="session")
def benched(edgewright: Edgewright, tiny_bundle: Path) -> Document:
    return one_document(
        edgewright("bench", tiny_bundle, "--seconds", "0.5", "--threads", "1", "--batch", "1", "--json")
    )


def test_bench_has_the_contract_s_keys(benched: Document) -> None:
    wanted = {
        *("artefact", "backend", "scenario", "threads", "batch", "samples"),
        *("p50_ms", "p90_ms", "p99_ms", "images_per_s", "stages_ms"),
    }
    assert [wanted - set(entry) for entry in benched["reports"]] == [set(), set()]


def test_bench_measures_every_artefact(benched: Document) -> None:
    assert [(entry["artefact"], entry["threads"]) for entry in benched["reports"]] == [
        ("openvino.fp32", 1),
        ("model.fp32", 1),
    ]


def test_bench_says_on_what_it_measured(benched: Document) -> None:
    assert benched["device"]["cpu"]


def test_bench_figures_fit_together(benched: Document) -> None:
    for entry in benched["reports"]:
        assert 0 < sum(entry["stages_ms"].values()) <= 2 * entry["p50_ms"]


# What people see


def test_table_is_not_on_stdout(edgewright: Edgewright, tiny_bundle: Path) -> None:
    found = edgewright("verify", tiny_bundle)
    assert (found.returncode, found.stdout) == (0, "")
    assert "model.fp32" in found.stderr


def test_predict_prints_a_line_for_each_picture(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> None:
    found = edgewright("predict", tiny_bundle, album / "red", *ONNX)
    assert [line.split("\t")[:2] for line in found.stdout.splitlines()] == [
        [str(album / "red" / "0.png"), "red"],
        [str(album / "red" / "1.png"), "red"],
    ]


def test_val_names_what_it_left_out(edgewright: Edgewright, tiny_bundle: Path, tmp_path: Path, paint: Paint) -> None:
    (tmp_path / "test" / "red").mkdir(parents=True)
    paint("red", 1).save(tmp_path / "test" / "red" / "good.png")
    (tmp_path / "test" / "red" / "bad.png").write_bytes(b"no picture")
    found = edgewright("val", tiny_bundle, tmp_path, *ONNX, "--json")
    unreadable = one_document(found)["unreadable"]
    assert [entry["file"] for entry in unreadable] == [str(tmp_path / "test" / "red" / "bad.png")]
    assert "left out: " in found.stderr


# What cannot be read


@pytest.fixture(scope="session")
def mixed(
    tmp_path_factory: pytest.TempPathFactory, paint: Paint, edgewright: Edgewright, tiny_bundle: Path
) -> Completed:
    """Labelling a folder with a red picture, one that is none, and a blue picture."""
    root = tmp_path_factory.mktemp("mixed")
    paint("red", 1).save(root / "a.png")
    (root / "b.png").write_bytes(b"no picture")
    paint("blue", 1).save(root / "c.png")
    return edgewright("predict", tiny_bundle, root, *ONNX, "--json")


def test_bad_picture_gets_an_error_and_the_others_their_labels(mixed: Completed) -> None:
    entries = one_document(mixed, status=2)["predictions"]
    assert [(Path(entry["file"]).name, entry.get("label"), "error" in entry) for entry in entries] == [
        ("a.png", "red", False),
        ("b.png", None, True),
        ("c.png", "blue", False),
    ]


def test_bad_picture_is_counted_in_one_message(mixed: Completed) -> None:
    assert mixed.stderr == "edgewright: 1 of 3 pictures could not be read; the others have their labels.\n"


def test_missing_picture_is_one_that_cannot_be_read(edgewright: Edgewright, tiny_bundle: Path, tmp_path: Path) -> None:
    found = edgewright("predict", tiny_bundle, tmp_path / "nowhere.png", *ONNX, "--json")
    assert "No such file" in one_document(found, status=2)["predictions"][0]["error"]


def in_bytes(folder: Path, encoding: str, *arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
    """The command line where the terminal has this encoding; its output as it is."""
    command = [os.fsencode(part) for part in (sys.executable, "-m", "edgewright", *arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)


@pytest.fixture
def odd_name(tmp_path: Path, paint: Paint) -> bytes:
    """A red picture whose name is not UTF-8."""
    if sys.platform != "linux":
        pytest.skip("other systems have no such names")
    file = os.fsencode(tmp_path) + b"/caf\xe9.png"
    paint("red", 1).save(tmp_path / "red.png")
    os.rename(tmp_path / "red.png", file)  # noqa: PTH104 - the name is bytes
    return file


def test_name_that_is_not_utf_8_does_not_spoil_the_document(tiny_bundle: Path, tmp_path: Path, odd_name: bytes) -> None:
    found = in_bytes(tmp_path, "utf-8", "predict", tiny_bundle, odd_name, *ONNX, "--json")
    assert (found.returncode, found.stderr) == (0, b"")
    (entry,) = json.loads(found.stdout.decode("ascii"))["predictions"]
    assert (os.fsencode(entry["file"]), entry["label"]) == (odd_name, "red")


def test_name_that_is_not_utf_8_is_escaped_for_people(tiny_bundle: Path, tmp_path: Path, odd_name: bytes) -> None:
    found = in_bytes(tmp_path, "utf-8", "predict", tiny_bundle, odd_name, *ONNX)
    assert (found.returncode, found.stderr) == (0, b"")
    assert rb"/caf\udce9.png" + b"\tred\t" in found.stdout


def test_label_that_the_terminal_lacks_is_escaped(tiny_bundle: Path, tmp_path: Path, album: Path) -> None:
    found = in_bytes(tmp_path, "ascii", "predict", tiny_bundle, album / "très noir" / "0.png", *ONNX)
    assert (found.returncode, found.stderr) == (0, b"")
    assert rb"\xe8s noir" in found.stdout.split(b"\t")[1]


def test_document_is_ascii(tiny_bundle: Path, tmp_path: Path, album: Path) -> None:
    found = in_bytes(tmp_path, "ascii", "predict", tiny_bundle, album / "très noir" / "0.png", *ONNX, "--json")
    assert (found.returncode, found.stderr) == (0, b"")
    assert json.loads(found.stdout.decode("ascii"))["predictions"][0]["label"] == "très noir"


def test_message_that_the_terminal_lacks_is_escaped(tmp_path: Path) -> None:
    found = in_bytes(tmp_path, "ascii", "verify", "très loin")
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.startswith(rb"edgewright: No bundle at 'tr\xe8s loin'")


# What is refused


COMMANDS = {
    "verify": (),
    "val": ("{album}",),
    "predict": ("{album}",),
    "bench": ("--seconds", "0.1"),
}


def arguments(command: str, album: Path) -> list[str]:
    return [argument.format(album=album) for argument in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_bundle_is_one_message(edgewright: Edgewright, tmp_path: Path, album: Path, command: str) -> None:
    found = edgewright(command, tmp_path / "nowhere", *arguments(command, album), "--json")
    assert_one_message(found, "No bundle at")


def test_path_that_is_too_long_is_one_message(edgewright: Edgewright) -> None:
    assert_one_message(edgewright("verify", "x" * 300, "--json"), "No bundle at")


def test_what_the_system_refuses_is_one_message(edgewright: Edgewright, tiny_bundle: Path) -> None:
    assert_one_message(edgewright("val", tiny_bundle, "x" * 300, "--json"), "x" * 300)


@pytest.mark.parametrize("command", ["verify", "predict"])
def test_tampered_bundle_is_one_message(edgewright: Edgewright, tampered: Path, album: Path, command: str) -> None:
    found = edgewright(command, tampered, *arguments(command, album), "--json")
    assert_one_message(found, "'golden/000.rgb' in")


@pytest.mark.parametrize("command", ["val", "predict", "bench"])
def test_unknown_artefact_is_one_message(edgewright: Edgewright, tiny_bundle: Path, album: Path, command: str) -> None:
    found = edgewright(command, tiny_bundle, *arguments(command, album), "--artefact", "model.int4")
    assert_one_message(found, "It has: openvino.fp32, model.fp32")


def test_missing_data_is_one_message(edgewright: Edgewright, tiny_bundle: Path, tmp_path: Path) -> None:
    assert_one_message(edgewright("val", tiny_bundle, tmp_path / "nowhere"), "No folder at")


def test_unknown_split_is_one_message(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> None:
    found = edgewright("val", tiny_bundle, album, "--split", "tset")
    assert_one_message(found, "expected one of train, val, test")


def test_folder_without_pictures_is_one_message(edgewright: Edgewright, tiny_bundle: Path, tmp_path: Path) -> None:
    assert_one_message(edgewright("predict", tiny_bundle, tmp_path), "No pictures in")


def test_unknown_backend_is_one_message(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> None:
    assert_one_message(edgewright("predict", tiny_bundle, album, "--backend", "tflite"), "backend 'tflite'")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("predict", ("--threads", "0")),
        ("predict", ("--threads", "1025")),
        ("bench", ("--threads", "0")),
        ("bench", ("--threads", "1025")),
        ("predict", ("--top-k", "0")),
        ("predict", ("--no-such-option",)),
    ],
)
def test_wrong_option_is_wrong_usage(
    edgewright: Edgewright, tiny_bundle: Path, album: Path, command: str, option: tuple[str, ...]
) -> None:
    found = edgewright(command, tiny_bundle, *arguments(command, album), *option)
    assert (found.returncode, found.stdout) == (2, "")
    assert option[0] in found.stderr
    assert "Traceback" not in found.stderr


def test_model_that_does_not_load_is_one_message(
    edgewright: Edgewright, tiny_copy: Path, album: Path, reseal: Callable[..., None]
) -> None:
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(b"no model")
    reseal(tiny_copy)
    assert_one_message(edgewright("predict", tiny_copy, album, *ONNX), "cannot load 'model.fp32'")


def test_artefact_on_another_backend_is_one_message(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> None:
    found = edgewright("predict", tiny_bundle, album, *ONNX, "--backend", "openvino")
    assert_one_message(found, "'model.fp32' cannot run on backend 'openvino'")


# What a gate says


@pytest.fixture
def unfaithful(tiny_copy: Path, reseal: Callable[..., None], network: Callable[..., onnx.ModelProto]) -> Path:
    """A bundle, checksums in order, with an artefact that is not the trained model."""
    (tiny_copy / "artefacts" / "model.fp32.onnx").write_bytes(network(seed=1).SerializeToString())
    reseal(tiny_copy)
    return tiny_copy


def test_verify_that_fails_exits_with_one_and_prints_its_document(edgewright: Edgewright, unfaithful: Path) -> None:
    found = edgewright("verify", unfaithful, "--json")
    document = one_document(found, status=1)
    assert (document["passed"], [entry["passed"] for entry in document["artefacts"]]) == (False, [True, False])
    assert found.stderr.rstrip().splitlines()[-1].startswith("edgewright: Verification failed")


# What is not installed


def without_openvino(python: Callable[..., Completed], *argv: str | Path) -> Completed:
    code = "import sys; sys.argv[0] = 'edgewright'; from edgewright.cli import main; main()"
    return python("-c", code, *argv, without=("openvino",))


def test_verify_passes_on_what_runs_here(python: Callable[..., Completed], tiny_bundle: Path) -> None:
    document = one_document(without_openvino(python, "verify", tiny_bundle, "--json"))
    assert (document["passed"], [entry["passed"] for entry in document["artefacts"]]) == (True, [None, True])


def test_val_passes_over_what_does_not_run_here(
    python: Callable[..., Completed], tiny_bundle: Path, album: Path
) -> None:
    found = without_openvino(python, "val", tiny_bundle, album, "--json")
    assert [entry["name"] for entry in one_document(found)["artefacts"]] == ["model.fp32"]
    assert "'openvino.fp32' is passed over: openvino is not installed here" in found.stderr


def test_predict_falls_back(python: Callable[..., Completed], tiny_bundle: Path, album: Path) -> None:
    found = without_openvino(python, "predict", tiny_bundle, album / "red", "--json")
    assert [entry["label"] for entry in one_document(found)["predictions"]] == ["red", "red"]


def test_artefact_that_does_not_run_here_names_its_extra(
    python: Callable[..., Completed], tiny_bundle: Path, album: Path
) -> None:
    found = without_openvino(python, "val", tiny_bundle, album, "--artefact", "openvino.fp32")
    assert_one_message(found, "pip install 'edgewright[openvino]'")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such pipes")
def test_reader_that_went_away_is_no_error_message(tiny_bundle: Path, album: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgewright", "predict", str(tiny_bundle), str(album), *ONNX, "--json"]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(writer)
    assert found.stderr == b""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/full")
def test_full_disk_is_one_message(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "edgewright", "predict", str(tiny_bundle), str(tiny_bundle / "golden" / "000.png")]
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run([*command, *ONNX], stdout=full, stderr=subprocess.PIPE, check=False, timeout=120)
    assert (found.returncode, found.stderr) == (2, b"edgewright: No space left on device\n")
