"""Files of results: what is in them, what an interrupt leaves behind, and that it cannot be told afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.runtime.classifier import Classifier, LabelScore, Prediction, Timings
from edgewright.runtime.errors import ImageError, UsageError
from edgewright.runtime.loading import load
from edgewright.runtime.parquet import portable, read_rows, write_rows
from edgewright.runtime.picture import Picture
from edgewright.runtime.pipeline import Result
from edgewright.runtime.results import ResultsFile, RunRecord, run_record
from edgewright.runtime.rows import CsvRows, JsonRows, Row, row_of

FORMATS = ("csv", "jsonl", "parquet")
ODD_NAMES = [
    'a,"b".png',
    "line\nbreak.png",
    "carriage\rreturn.png",
    "=1+1.png",
    " ",
    "très\u2028noir.png",
    "caf\udce9.png",
]


def record(form: str, top_k: int = 2) -> RunRecord:
    return RunRecord.model_validate(
        {
            "bundle": "colours",
            "manifest_sha256": "0" * 64,
            "artefact": "model.fp32",
            "backend": "onnxruntime",
            "min_score": 0.0,
            "top_k": top_k,
            "format": form,
        }
    )


def rows(names: Sequence[str]) -> list[Row]:
    """Every third is an error, every fourth a frame."""
    found: list[Row] = []
    for number, name in enumerate(names):
        row: Row = {"file": name}
        if number % 4 == 3:
            row["time_s"] = number / 3
        if number % 3 == 2:
            row["error"] = f'{name} is damaged, "truly": yes\nand no'
        else:
            score = 1 / (number + 1.1)
            ranked = [{"label": "red", "score": score}, {"label": "très noir", "score": 1 - score}]
            row |= {"label": "red", "index": 0, "score": score, "known": score > 0.5, "top_k": ranked}
        found.append(row)
    return found


def write(out: Path, all_rows: Sequence[Row], *, stop: int | None = None, **how: bool) -> ResultsFile:
    """A run over these pictures; `stop` interrupts it after so many new rows."""
    with ResultsFile(out, record(out.suffix[1:]), **how) as results:
        pictures = iter([Picture(row["file"], b"") for row in all_rows])
        results.skip(pictures)
        rest = {id(picture): None for picture in pictures}
        for number, row in enumerate(all_rows[len(all_rows) - len(rest) :]):
            if number == stop:
                raise KeyboardInterrupt
            results.write(row)
    return results


def interrupted(out: Path, all_rows: Sequence[Row], stop: int, **how: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, all_rows, stop=stop, **how)


def rows_file(out: Path) -> Path:
    """Where rows are while a run is on its way."""
    return out.with_name(f"{out.name}.rows.jsonl") if out.suffix == ".parquet" else out


@pytest.fixture(params=FORMATS)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A place for results in each format."""
    return tmp_path / f"results.{request.param}"


@pytest.fixture
def whole(out: Path) -> tuple[list[Row], bytes]:
    """Rows, and the file that an uninterrupted run makes of them."""
    found = rows([f"{number:02d}.png" for number in range(9)] + ODD_NAMES)
    other = out.with_name(f"whole{out.suffix}")
    write(other, found)
    return found, other.read_bytes()


# What is in them


def test_csv_is_read_back_whatever_the_names(tmp_path: Path) -> None:
    found = rows([*ODD_NAMES, "plain.png"])
    write(tmp_path / "r.csv", found)
    with (tmp_path / "r.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        read = list(csv.DictReader(stream, strict=True))
    assert [row["file"] for row in read] == [*ODD_NAMES, "plain.png"]
    assert list(read[0]) == ["file", "time_s", "label", "index", "score", "known", "label_2", "score_2", "error"]
    assert [row["error"] for row in read] == [row.get("error", "") for row in found]
    assert [row["label_2"] for row in read] == ["très noir" if "label" in row else "" for row in found]
    assert [float(row["score"]) for row in read if row["score"]] == [row["score"] for row in found if "score" in row]
    assert [row["time_s"] for row in read] == [str(row.get("time_s", "")) for row in found]


def test_csv_keeps_the_bytes_of_a_name(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", rows(["caf\udce9.png"]))
    assert b'"caf\xe9.png"' in (tmp_path / "r.csv").read_bytes()


def test_json_lines_are_the_rows(tmp_path: Path) -> None:
    found = rows(ODD_NAMES)
    write(tmp_path / "r.jsonl", found)
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("ascii").splitlines()] == found


def test_parquet_has_typed_columns_and_nothing_beside_it(tmp_path: Path) -> None:
    found = rows([*ODD_NAMES, "plain.png"])
    write(tmp_path / "r.parquet", found)
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.schema.field("index").type == pa.int32()
    assert table.schema.field("score").type == pa.float64()
    assert table.column("file").to_pylist() == [*ODD_NAMES[:-1], r"caf\xe9.png", "plain.png"]
    assert table.column("score").to_pylist() == [row.get("score") for row in found]
    assert table.column("top_k").to_pylist() == [row.get("top_k") for row in found]
    assert table.column("time_s").to_pylist() == [row.get("time_s") for row in found]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet", "r.parquet.run.json"]


def test_parquet_of_many_rows_is_written_in_groups(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(25_000)]
    write_rows(tmp_path / "r.parquet", ({"file": name, "error": "none"} for name in names))
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 3
    assert [row["file"] for row in read_rows(tmp_path / "r.parquet")] == names


@given(st.binary(max_size=12))
def test_portable_name_is_text_and_stays_as_it_is(name: bytes) -> None:
    found = portable(os.fsdecode(name))
    assert found.encode("utf-8").decode() == found == portable(found)


def test_row_has_what_the_prediction_says() -> None:
    ranked = (LabelScore("red", 1, 0.75), LabelScore("blue", 0, 0.25))
    prediction = Prediction("red", 1, 0.75, True, ranked, Timings(1, 2, 3, 4))
    assert row_of(Result(Picture("a.png", b""), prediction, None)) == {
        "file": "a.png",
        "label": "red",
        "index": 1,
        "score": 0.75,
        "known": True,
        "top_k": [{"label": "red", "score": 0.75}, {"label": "blue", "score": 0.25}],
    }
    assert row_of(Result(Picture("a.mp4#000001", b"", 0.5), None, ImageError("torn"))) == {
        "file": "a.mp4#000001",
        "time_s": 0.5,
        "error": "torn",
    }


# What an interrupt leaves behind


def test_resumed_file_has_the_same_bytes(out: Path, whole: tuple[list[Row], bytes]) -> None:
    found, expected = whole
    interrupted(out, found, 3)
    interrupted(out, found, 0, resume=True)
    interrupted(out, found, 5, resume=True)
    results = write(out, found, resume=True)
    assert out.read_bytes() == expected
    assert (results.kept, results.kept_failed) == (8, 2)


def test_row_is_on_its_way_to_the_disk_when_write_returns(out: Path) -> None:
    found = rows(["a.png", "b.png"])
    with ResultsFile(out, record(out.suffix[1:])) as results:
        results.skip(iter(()))
        for row in found:
            results.write(row)
            assert json.dumps(row["file"]).encode() in rows_file(out).read_bytes().replace(b'""', b'\\"')


def test_torn_anywhere_it_is_mended(out: Path) -> None:
    found = rows(["line\nbreak.png", 'a,"b".png', "c.png"])
    write(out, found)
    expected = out.read_bytes()
    interrupted(out, found, len(found) - 1, overwrite=True)
    left = rows_file(out).read_bytes()
    for size in range(0, len(left), 1 if out.suffix == ".csv" else 5):
        rows_file(out).write_bytes(left[:size])
        results = write(out, found, resume=True)
        assert out.read_bytes() == expected, size
        assert results.kept <= len(found)
        if out.suffix == ".parquet":
            out.unlink()


@given(
    cut=st.integers(0, 700),
    name=st.text(st.sampled_from("a,\"\n\r'\\é\u2028\udce9"), max_size=8),
    others=st.integers(0, 3),
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_torn_in_any_name_it_is_mended(
    tmp_path_factory: pytest.TempPathFactory, form: str, cut: int, name: str, others: int
) -> None:
    out = tmp_path_factory.mktemp("torn") / f"r.{form}"
    found = rows([name] * 3 + ["plain"] * others)
    write(out, found)
    expected = out.read_bytes()
    out.write_bytes(expected[: min(cut, len(expected))])
    write(out, found, resume=True)
    assert out.read_bytes() == expected


def test_zeros_after_a_power_cut_are_cut_off(out: Path, whole: tuple[list[Row], bytes]) -> None:
    found, expected = whole
    interrupted(out, found, 4)
    with rows_file(out).open("ab") as stream:
        stream.write(bytes(4096))
    write(out, found, resume=True)
    assert out.read_bytes() == expected


def test_finished_file_goes_on_with_more_pictures(out: Path, whole: tuple[list[Row], bytes]) -> None:
    found, expected = whole
    write(out, found[:7])
    results = write(out, found, resume=True)
    assert out.read_bytes() == expected
    assert results.kept == 7


def test_finished_file_stays_as_it_is(out: Path, whole: tuple[list[Row], bytes]) -> None:
    found, expected = whole
    write(out, found)
    assert write(out, found, resume=True).kept == len(found)
    assert out.read_bytes() == expected


def test_nothing_to_resume_is_a_beginning(out: Path, whole: tuple[list[Row], bytes]) -> None:
    found, expected = whole
    write(out, found, resume=True)
    assert out.read_bytes() == expected


@pytest.mark.parametrize("before", ["rows", "finished"])
def test_file_that_is_there_is_not_lost(out: Path, whole: tuple[list[Row], bytes], before: str) -> None:
    found, expected = whole
    if before == "rows":
        interrupted(out, found, 4)
    else:
        write(out, found)
    kept = {path: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(
        UsageError, match=r"is there already. Continue it with --resume, or replace it with --overwrite"
    ):
        write(out, found[:1])
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == kept
    write(out, found, overwrite=True)
    assert out.read_bytes() == expected


def test_resume_and_overwrite_exclude_each_other(out: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        write(out, [], resume=True, overwrite=True)
    assert list(out.parent.iterdir()) == []


def changed(names: list[str], how: str) -> list[str]:
    return {"fewer": names[:2], "other": ["new.png", *names], "swapped": [names[1], names[0], *names[2:]]}[how]


@pytest.mark.parametrize("how", ["fewer", "other", "swapped"])
def test_other_pictures_than_before_are_refused(out: Path, how: str) -> None:
    names = [f"{number}.png" for number in range(6)]
    interrupted(out, rows(names), 4)
    left = rows_file(out).read_bytes()
    with pytest.raises(UsageError, match=r"was '\d\.png'; now .* The sources have changed"):
        write(out, rows(changed(names, how)), resume=True)
    assert rows_file(out).read_bytes() == left


@pytest.mark.parametrize(
    ("field", "value"),
    [("manifest_sha256", "1" * 64), ("artefact", "openvino.fp32"), ("top_k", 3), ("backend", "openvino")],
)
def test_rows_of_another_run_are_refused(out: Path, field: str, value: object) -> None:
    interrupted(out, rows(["a.png", "b.png"]), 1)
    other = record(out.suffix[1:]).model_copy(update={field: value})
    with pytest.raises(UsageError, match=f"was begun with {field} .*, this is {value}"):
        ResultsFile(out, other, resume=True)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"schema_version": 2}'])
def test_rows_of_an_unknown_run_are_refused(out: Path, content: bytes | None) -> None:
    interrupted(out, rows(["a.png", "b.png"]), 1)
    beside = out.with_name(f"{out.name}.run.json")
    beside.unlink() if content is None else beside.write_bytes(content)
    with pytest.raises(UsageError, match="says what it is of, is missing or damaged"):
        ResultsFile(out, record(out.suffix[1:]), resume=True)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("csv", b'"one","cell"\n'),
        ("csv", b'"a"b,"c"\n'),
        ("jsonl", b"[]\n"),
        ("jsonl", b'{"file": 3, "error": "x"}\n'),
        ("jsonl", b'{"file": "a"}\n'),
        ("jsonl", b"no json\n"),
    ],
)
def test_damage_in_the_middle_is_refused(tmp_path: Path, form: str, row: bytes) -> None:
    out = tmp_path / f"r.{form}"
    found = rows(["a.png", "b.png", "c.png"])
    write(out, found)
    lines = out.read_bytes().splitlines(keepends=True)
    at = len(lines) - 2
    out.write_bytes(b"".join([*lines[:at], row, *lines[at:]]))
    left = out.read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        write(out, found, resume=True)
    assert out.read_bytes() == left


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_other_parquet_is_refused(tmp_path: Path, content: bytes | None) -> None:
    out = tmp_path / "r.parquet"
    write(out, rows(["a.png"]))
    if content is None:
        pq.write_table(pa.table({"file": ["a.png"]}), out)
    else:
        out.write_bytes(content)
    left = out.read_bytes()
    with pytest.raises(UsageError, match=r"r\.parquet"):
        write(out, rows(["a.png"]), resume=True)
    assert out.read_bytes() == left


def test_two_processes_cannot_write_the_same_file(out: Path) -> None:
    pytest.importorskip("fcntl")
    how = record(out.suffix[1:])
    with ResultsFile(out, how) as results:
        for more in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match="Another process is writing"):
                ResultsFile(out, how, **more)
        results.skip(iter(()))
        results.write(rows(["a.png"])[0])
    assert b"a.png" in out.read_bytes()


def test_folder_in_its_place_is_refused(out: Path) -> None:
    out.mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        ResultsFile(out, record(out.suffix[1:]), overwrite=True)


# What they are of


@pytest.fixture
def classifier(tiny_bundle: Path) -> Iterator[Classifier]:
    """The tiny bundle on ONNX Runtime."""
    with load(tiny_bundle, "model.fp32") as loaded:
        yield loaded


def test_record_says_what_the_rows_are_of(classifier: Classifier) -> None:
    found = run_record(classifier, Path("r.CSV"), 100)
    assert (found.bundle, found.artefact, found.backend) == ("colours-0", "model.fp32", "onnxruntime")
    assert (found.top_k, found.format) == (4, "csv")


def test_record_changes_with_the_bundle(classifier: Classifier, other_bundle: Path) -> None:
    with load(other_bundle, "model.fp32") as other:
        one, two = (run_record(each, Path("r.csv"), 1).manifest_sha256 for each in (classifier, other))
    assert one != two


def test_unknown_format_is_refused(classifier: Classifier) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends in .csv, .jsonl or .parquet"):
        run_record(classifier, Path("results.xlsx"), 1)


@pytest.mark.parametrize("make", [lambda: CsvRows(2), JsonRows])
def test_rows_end_where_their_bytes_end(make: Callable[[], CsvRows | JsonRows]) -> None:
    form = make()
    found = rows(ODD_NAMES)
    data, ends = form.header(), []
    for row in found:
        data += form.encode(row)
        ends.append(len(data))
    written = list(form.written(io.BytesIO(data), "rows"))
    assert [row.end for row in written] == ends
    assert [row.file for row in written] == ODD_NAMES
    assert [row.failed for row in written] == ["error" in row for row in found]
