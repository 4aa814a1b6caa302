"""What a report says: who is on the front, who is fastest, and figures that people can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.benchmarks.report.content import COLUMNS, build_content, grouped, pareto_front
from edgewright.benchmarks.report.labels import Box, find_places
from edgewright.benchmarks.report.words import figure, visible
from edgewright.benchmarks.reports import Interval, LatencyReport, LayerTime

Measure = Callable[..., Any]

ROW = LatencyReport(
    artefact="a", backend="b", device="cpu", provider="p", precision="fp32", scenario="closed-loop", threads=1, batch=1,
    samples=10, p50_ms=1.0, p90_ms=None, p95_ms=None, p99_ms=None, intervals={}, images_per_s=1.0, stages_ms={},
    size_bytes=1, top1=None, drop=None, recommended=False,
)  # fmt: skip

# Few different values, so that many are equal.
ROWS = st.lists(
    st.builds(
        lambda p50, top1: replace(ROW, p50_ms=p50, top1=top1),
        st.sampled_from([1.0, 2.0, 3.0, 4.5, 7.0]),
        st.none() | st.sampled_from([0.5, 0.6, 0.7, 0.9]),
    ),
    max_size=12,
)


def better(one: LatencyReport, other: LatencyReport) -> bool:
    """As fast and as accurate, and not equal in both."""
    assert one.top1 is not None
    assert other.top1 is not None
    same = (one.p50_ms, one.top1) == (other.p50_ms, other.top1)
    return one.p50_ms <= other.p50_ms and one.top1 >= other.top1 and not same


@given(ROWS)
def test_front_is_what_nothing_beats(rows: list[LatencyReport]) -> None:
    front = pareto_front(rows)
    known = [row for row in rows if row.top1 is not None]
    best = [row for row in known if not any(better(other, row) for other in known)]
    assert {(rows[index].p50_ms, rows[index].top1) for index in front} == {(row.p50_ms, row.top1) for row in best}
    # Each pair once, the fastest first.
    times = [rows[index].p50_ms for index in front]
    assert times == sorted(set(times))


@given(ROWS.filter(len))
def test_groups_have_every_row_once(rows: list[LatencyReport]) -> None:
    mixed = [replace(row, batch=1 + index % 3) for index, row in enumerate(rows)]
    groups = grouped(mixed)
    assert sorted(index for group in groups for index in group.rows) == list(range(len(rows)))
    for group in groups:
        assert len({mixed[index].batch for index in group.rows}) == 1
        times = [mixed[index].p50_ms for index in group.rows]
        assert times == sorted(times)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (0, "0"), (0.04321, "0.0432"), (0.5, "0.500"), (0.9999, "1.00"), (2.314, "2.31"), (9.996, "10.0"),
        (433.4, "433"), (12345.6, "12,346"), (1e-7, "1e-07"), (1e12, "1e+12"), (-2.314, "-2.31"),
    ],
)  # fmt: skip
def test_figures(value: float | None, shown: str) -> None:
    assert figure(value) == shown


@given(st.floats(1e-4, 1e8))
def test_figures_are_what_they_round(value: float) -> None:
    assert float(figure(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.text())
def test_what_is_shown_is_one_line_that_can_be_written(text: str) -> None:
    assert len(visible(text).splitlines()) <= 1
    visible(text).encode()


def test_headlines(measured: Measure) -> None:
    content = build_content(measured()[0], {})
    found = {headline.title: headline.name for headline in content.headlines}
    assert found == {
        "Fastest": "openvino.int8, 2 threads",
        "Most accurate": "openvino.fp32, 2 threads",
        "Recommended by the bundle": "openvino.int8, 2 threads",
    }
    assert content.compared == "closed loop, batch 1"


def test_fastest_by_less_than_noise_says_so() -> None:
    fast = replace(ROW, artefact="fast", p50_ms=1.0, intervals={"p50": Interval(0.9, 1.2)})
    close = replace(ROW, artefact="close", p50_ms=1.1, intervals={"p50": Interval(1.05, 1.3)})
    slow = replace(ROW, artefact="slow", p50_ms=2.0, intervals={"p50": Interval(1.9, 2.1)})
    document = _document(close, fast, slow)
    (headline,) = build_content(document, {}).headlines
    assert headline.name == "fast"
    assert "close" in headline.remark
    assert "slow" not in headline.remark
    assert build_content(_document(fast, slow), {}).headlines[0].remark == ""


def _document(*rows: LatencyReport) -> Any:
    from edgewright.benchmarks.document import BenchDocument

    return BenchDocument(bundle="b", bundle_sha256="0" * 64, created_at="now", device={}, conditions={}, reports=rows)


def test_cells_are_under_their_columns() -> None:
    row = replace(
        ROW, artefact="x", p50_ms=2.5, p90_ms=3.25, intervals={"p50": Interval(2.45, 2.6)}, top1=0.9123, drop=-0.1,
        size_bytes=9_123_456, images_per_s=400.0, threads=None, joules_per_image=0.0123,
    )  # fmt: skip
    (shown,) = build_content(_document(row), {}).rows
    assert dict(zip(COLUMNS, shown.cells, strict=True)) == {
        "artefact": "x", "backend": "b", "precision": "fp32", "threads": "–", "batch": "1", "scenario": "closed loop",
        "accuracy": "91.23%", "drop": "-0.10", "size MB": "9.12", "p50 ms": "2.50 ± 0.10", "p90 ms": "3.25",
        "p99 ms": "–", "images/s": "400", "memory MB": "–", "J/image": "0.0123",
    }  # fmt: skip


def test_remarks_of_scenarios() -> None:
    loud = replace(ROW, scenario="mlperf-server", details={"compliant": 0.0})
    busy = replace(ROW, artefact="flooded", scenario="open-loop", details={"overloaded": 1.0, "offered_per_s": 9.0})
    remarks = " ".join(build_content(_document(ROW, loud, busy), {}).remarks)
    assert "no MLPerf results" in remarks
    assert "flooded" in remarks
    assert "MLPerf" not in " ".join(build_content(_document(ROW), {}).remarks)


def test_what_the_machine_does_not_tell_is_named(measured: Measure) -> None:
    content = build_content(measured()[0], {})
    assert content.silent == ("memory", "governor")
    assert ("frequency max", "2,900 MHz") in content.conditions
    assert ("others busy", "1.0% of the time") in content.conditions
    assert ("measured for", "12.3 s") in content.conditions
    assert ("versions", "numpy 2") in content.device


def test_layers_keep_their_sum() -> None:
    layers = [LayerTime(f"layer{index}", "Conv", "int8", 1.0 + index, 0.02) for index in range(50)]
    (table,) = build_content(_document(ROW), {"x": layers, "empty": []}).layers
    assert table.rows[0][0] == "layer49"
    assert table.rows[-1] == ("30 more", "", "", figure(sum(range(1, 31))), "60.0%")


POINTS = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 250)), max_size=10)


@given(POINTS, st.lists(st.floats(10, 180), min_size=10, max_size=10), st.integers(0, 10))
def test_names_cover_neither_each_other_nor_points(
    points: list[tuple[float, float]], widths: list[float], important: int
) -> None:
    inside = Box(0, 0, 400, 250)
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    sizes = [(width, 9.0) for width in widths[: len(points)]]
    places = find_places(points, sizes, marks, [], inside, important=important)
    boxes = [place.box for place in places if place is not None]
    assert all(box.within(inside) for box in boxes)
    assert not any(box.overlaps(mark) for box in boxes for mark in marks)
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    # What is of less importance stands beside its own point, or nowhere.
    for number, place in list(enumerate(places))[important:]:
        if place is not None:
            assert not place.far
            distances = [place.box.distance(point) for point in points]
            assert distances[number] == min(distances)


def test_a_name_alone_is_beside_its_point_and_off_the_line() -> None:
    (place,) = find_places([(200, 100)], [(50, 9)], [], [], Box(0, 0, 400, 250), important=1)
    assert place is not None
    assert place.offset[0] == 8
    (moved,) = find_places([(200, 100)], [(50, 9)], [], [Box(200, 99, 400, 101)], Box(0, 0, 400, 250), important=1)
    assert moved is not None
    assert moved.offset[0] < 8
    # Where a line is everywhere, the name stands on it.
    (forced,) = find_places([(200, 100)], [(50, 9)], [], [Box(0, 0, 400, 250)], Box(0, 0, 400, 250), important=1)
    assert forced == place
