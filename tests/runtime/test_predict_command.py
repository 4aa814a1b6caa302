"""`edgewright predict` on many pictures, in a process of its own: where results go, interrupts, and going on."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgewright.runtime.console import JsonList

Completed = subprocess.CompletedProcess[str]
Edgewright = Callable[..., Completed]
Paint = Callable[..., Image.Image]
LABELS = ("red", "green", "blue", "très noir")
ONNX = ("--artefact", "model.fp32")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    """Eight pictures; the fifth by name is none."""
    root = tmp_path_factory.mktemp("album")
    for number in range(8):
        paint(LABELS[number % 4], number).save(root / f"{number}.png")
    (root / "4.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="session")
def long_list(tmp_path_factory: pytest.TempPathFactory, album: Path) -> Path:
    """A list of 1,000 paths to those eight."""
    path = tmp_path_factory.mktemp("lists") / "long.txt"
    path.write_text("".join(f"{album / f'{number % 8}.png'}\n" for number in range(1000)))
    return path


@contextlib.contextmanager
def running(
    bundle: Path, *arguments: str | Path, stdout: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """`edgewright predict` at work; whatever happens, it ends with the block."""
    command = [sys.executable, "-m", "edgewright", "predict", str(bundle), *ONNX, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    """Until the file has so many bytes."""
    end = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.002)


def rows_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.rows.jsonl") if out.suffix == ".parquet" else out


def one_message(found: Completed, contains: str) -> None:
    assert found.returncode == 2, found.stderr
    assert contains in found.stderr
    assert found.stderr.count("edgewright: ") == 1
    assert "Traceback" not in found.stderr


# Where results go


@pytest.fixture(scope="session", params=["csv", "jsonl", "parquet"])
def written(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    edgewright: Edgewright,
    tiny_bundle: Path,
    album: Path,
) -> tuple[Completed, Path]:
    out = tmp_path_factory.mktemp("out") / "below" / f"results.{request.param}"
    return edgewright("predict", tiny_bundle, album, *ONNX, "--out", out), out


def read(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    found: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return found


def test_every_picture_has_a_row_in_order(written: tuple[Completed, Path], album: Path) -> None:
    rows = read(written[1])
    assert [row["file"] for row in rows] == [str(album / f"{number}.png") for number in range(8)]
    assert [row.get("label") or None for row in rows] == [None if n == 4 else LABELS[n % 4] for n in range(8)]
    assert [bool(row.get("error")) for row in rows] == [number == 4 for number in range(8)]


def test_people_see_the_count_the_rate_and_what_went_wrong(written: tuple[Completed, Path], album: Path) -> None:
    found, out = written
    assert (found.returncode, found.stdout) == (2, "")
    assert f"warning: {album / '4.png'} is not a picture" in found.stderr
    assert f"{out}: 8 rows, 0 of them from before, 1 errors; 8 pictures, " in found.stderr
    assert found.stderr.rstrip().endswith(
        "edgewright: 1 of 8 pictures could not be read; the others have their labels."
    )


def test_json_document_comes_as_well(edgewright: Edgewright, tiny_bundle: Path, album: Path, tmp_path: Path) -> None:
    found = edgewright("predict", tiny_bundle, album, *ONNX, "--json", "--out", tmp_path / "r.jsonl")
    entries = json.loads(found.stdout)["predictions"]
    rows = read(tmp_path / "r.jsonl")
    assert [{key: value for key, value in entry.items() if key != "timings_ms"} for entry in entries] == rows
    assert ["timings_ms" in entry for entry in entries] == [number != 4 for number in range(8)]


@pytest.mark.parametrize("items", [[], [{"file": "é", "top_k": [{"score": 0.5}]}], [{"a": 1}, {"b": []}, 3]])
def test_document_in_pieces_is_the_document(capsys: pytest.CaptureFixture[str], items: list[Any]) -> None:
    with JsonList("predictions") as document:
        for item in items:
            document.add(item)
    assert capsys.readouterr().out == json.dumps({"predictions": items}, indent=2) + "\n"


def test_document_is_ended_when_work_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with JsonList("predictions") as document:
            document.add({"file": "a"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert json.loads(capsys.readouterr().out) == {"predictions": [{"file": "a"}]}


def test_one_and_many_and_batches_say_the_same(edgewright: Edgewright, tiny_bundle: Path, album: Path) -> None:
    def labels(*arguments: str | Path) -> list[tuple[str, float]]:
        found = json.loads(edgewright("predict", tiny_bundle, *arguments, *ONNX, "--json").stdout)["predictions"]
        return [(entry["label"], round(entry["score"], 5)) for entry in found if "label" in entry]

    alone = [labels(album / f"{number}.png")[0] for number in (0, 7)]
    assert [labels(album)[number] for number in (0, -1)] == alone
    assert labels(album, "--batch", "3", "--in-flight", "5", "--threads", "1") == labels(album)


def test_answers_come_while_questions_are_asked(tiny_bundle: Path, album: Path) -> None:
    with running(tiny_bundle, "-", "--in-flight", "1") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (2, 0):
            process.stdin.write(f"{album / f'{number}.png'}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().split(b"\t")[1].decode() == LABELS[number]
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(timeout=20) == 0


# Interrupts


@pytest.fixture(scope="session")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, edgewright: Edgewright, tiny_bundle: Path, long_list: Path
) -> Path:
    """The results of the long list in each format, made in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for form in ("csv", "jsonl", "parquet"):
        found = edgewright("predict", tiny_bundle, f"@{long_list}", *ONNX, "--json", "--out", folder / f"r.{form}")
        assert "125 of 1000 pictures could not be read" in found.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["int", "kill"])
def test_interrupted_and_resumed_the_file_is_the_same(
    edgewright: Edgewright,
    tiny_bundle: Path,
    tmp_path: Path,
    long_list: Path,
    uninterrupted: Path,
    form: str,
    how: signal.Signals,
) -> None:
    out = tmp_path / "out" / f"r.{form}"
    document = tmp_path / "document.json"
    told = 0
    for interrupts, (size, more) in enumerate(((10_000, []), (40_000, ["--resume"])), 1):
        options = ["--json", "--out", out, *more]
        with document.open("wb") as stdout, running(tiny_bundle, f"@{long_list}", *options, stdout=stdout) as process:
            wait_for(rows_file(out), size, process)
            process.send_signal(how)
            _, stderr = process.communicate(timeout=20)
        if how == signal.SIGINT:
            assert process.returncode == 130, stderr
            assert b"the same command with --resume goes on" in stderr
            assert b"Traceback" not in stderr
            # The document is whole; and nothing that it tells was lost from the file.
            told += len(json.loads(document.read_bytes())["predictions"])
            rows = rows_file(out).read_bytes().count(b"\n") - (form == "csv")
            assert 0 <= rows - told <= interrupts
        else:
            assert process.returncode == -how
    found = edgewright("predict", tiny_bundle, f"@{long_list}", *ONNX, "--json", "--out", out, "--resume")
    assert found.returncode == 2
    assert "125 of 1000 pictures could not be read" in found.stderr
    assert out.read_bytes() == (uninterrupted / out.name).read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, f"{out.name}.run.json"]


def test_interrupt_while_it_waits_for_a_source(tiny_bundle: Path, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    with running(tiny_bundle, "-", "--out", out, "--in-flight", "1") as process:
        assert process.stdin is not None
        for number in range(3):
            process.stdin.write(f"{album / f'{number}.png'}\n".encode())
        process.stdin.flush()
        wait_for(out, 3 * len(json.dumps({"file": str(album / "0.png"), "label": "red", "index": 0})), process)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert [row["label"] for row in read(out)] == list(LABELS[:3])


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resume",), "give --out as well"),
        (("--overwrite",), "give --out as well"),
        (("--out", "r.xlsx"), "expected a name that ends in .csv, .jsonl or .parquet"),
        (("--out", "r.csv", "--resume", "--overwrite"), "exclude each other"),
        (("--batch", "4", "--in-flight", "3"), "at least one batch in flight"),
    ],
)
def test_what_cannot_work_is_one_message(
    edgewright: Edgewright, tiny_bundle: Path, album: Path, options: tuple[str, ...], message: str
) -> None:
    found = edgewright("predict", tiny_bundle, album, *ONNX, *options)
    one_message(found, message)
    assert found.stdout == ""


def test_results_that_are_there_are_kept(
    edgewright: Edgewright, tiny_bundle: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.csv"
    out.write_text("mine\n")
    one_message(edgewright("predict", tiny_bundle, album, *ONNX, "--out", out), "Continue it with --resume")
    one_message(edgewright("predict", tiny_bundle, album, *ONNX, "--out", out, "--resume"), "cannot be continued")
    assert out.read_text() == "mine\n"


def test_rows_of_another_artefact_are_not_continued(
    edgewright: Edgewright, tiny_bundle: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.csv"
    edgewright("predict", tiny_bundle, album, *ONNX, "--out", out)
    found = edgewright("predict", tiny_bundle, album, "--artefact", "openvino.fp32", "--out", out, "--resume")
    one_message(found, "was begun with artefact model.fp32, this is openvino.fp32")


def test_camera_cannot_be_resumed(edgewright: Edgewright, tiny_bundle: Path, tmp_path: Path) -> None:
    found = edgewright("predict", tiny_bundle, "camera:0", "--out", tmp_path / "r.csv", "--resume")
    one_message(found, "cannot find a camera's earlier frames again")


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [("pyarrow", "parquet", ("{album}", "--out", "r.parquet")), ("av", "video", ("film.mp4",))],
)
def test_missing_package_names_its_extra(
    python: Callable[..., Completed],
    tiny_bundle: Path,
    album: Path,
    package: str,
    extra: str,
    arguments: tuple[str, ...],
) -> None:
    code = "import sys; sys.argv[0] = 'edgewright'; from edgewright.cli import main; main()"
    given = [argument.format(album=album) for argument in arguments]
    found = python("-c", code, "predict", tiny_bundle, *given, *ONNX, without=(package,))
    one_message(found, f"pip install 'edgewright[{extra}]'")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/full")
def test_full_disk_names_the_file(edgewright: Edgewright, tiny_bundle: Path, album: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").symlink_to("/dev/full")
    one_message(
        edgewright("predict", tiny_bundle, album, *ONNX, "--out", tmp_path / "r.csv"),
        f"edgewright: No space left on device '{tmp_path / 'r.csv'}'",
    )


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such terminals")
def test_terminal_shows_how_fast_it_goes(tiny_bundle: Path, long_list: Path, tmp_path: Path) -> None:
    master, terminal = os.openpty()
    command = [sys.executable, "-m", "edgewright", "predict", str(tiny_bundle), *ONNX, f"@{long_list}", "--json"]
    shown = b""
    with (tmp_path / "out.json").open("wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=terminal, env=ENVIRONMENT | {"TERM": "xterm"})
    os.close(terminal)
    while process.poll() is None or not shown:
        try:
            shown += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    os.close(master)
    process.wait()
    assert re.search(rb"\d+ pictures, [\d.]+/s", shown), shown
    assert len(json.loads((tmp_path / "out.json").read_text())["predictions"]) == 1000
