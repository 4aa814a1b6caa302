"""Sharing, closing and warming up: the same answers from eight threads, nothing that runs after `close`, nothing that stays."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgewright.runtime.backends import EngineSettings, LoadRequest, load_backend
from edgewright.runtime.backends.lifetime import Lifetime
from edgewright.runtime.bundle import Bundle
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.loading import load

Pixels = npt.NDArray[np.uint8]
PATIENCE_S = 20
every_engine = pytest.mark.parametrize("artefact", ["model.fp32", "openvino.fp32"])


# One life


def test_end_refuses_what_comes_later() -> None:
    life = Lifetime("the model")
    with life:
        pass
    assert life.end()
    assert not life.end()
    with pytest.raises(BackendError, match=r"'the model' is closed\. Load it again"), life:
        pytest.fail("ran after the end")


def test_end_waits_for_what_is_running() -> None:
    life = Lifetime("the model")
    inside, leave = threading.Event(), threading.Event()
    ended: list[str] = []

    def run() -> None:
        with life:
            inside.set()
            assert leave.wait(PATIENCE_S)
            ended.append("run")

    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(run)
        assert inside.wait(PATIENCE_S)
        closings = [pool.submit(lambda: ended.append("close") if life.end() else ended.append("second")) for _ in "12"]
        while life._open:
            time.sleep(0.001)
        with pytest.raises(BackendError, match="is closed"), life:
            pass
        assert ended == []
        leave.set()
        running.result(PATIENCE_S)
        for closing in closings:
            closing.result(PATIENCE_S)
    assert ended[0] == "run"
    assert sorted(ended[1:]) == ["close", "second"]


def test_run_that_fails_has_ended() -> None:
    life = Lifetime("the model")
    with pytest.raises(ZeroDivisionError), life:
        raise ZeroDivisionError
    assert life.end()


def test_signal_handler_may_close_what_it_interrupts() -> None:
    life = Lifetime("the model")

    def handler() -> None:
        with life:
            assert life.end()  # in the thread whose run this is

    thread = threading.Thread(target=handler, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


# Engines


@every_engine
@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_eight_threads_get_what_one_gets_bit_by_bit(
    tiny_bundle: Path, artefact: str, threads: int, streams: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    with load(tiny_bundle, artefact, threads=threads, streams=streams) as classifier:
        expected = [classifier.run(picture[None]).tobytes() for picture in pixels]
        barrier = threading.Barrier(8)

        def hundred_runs(worker: int) -> bool:
            barrier.wait(PATIENCE_S)
            picks = np.random.default_rng(worker).integers(0, len(pixels), 100)
            return all(classifier.run(pixels[pick, None]).tobytes() == expected[pick] for pick in picks)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(hundred_runs, range(8)))


@every_engine
def test_closing_during_use_ends_every_thread_with_an_answer_or_a_refusal(
    tiny_bundle: Path, golden_pixels: Pixels, artefact: str
) -> None:
    for attempt in range(5):
        classifier = load(tiny_bundle, artefact, threads=1)
        expected = classifier.run(golden_pixels).tobytes()
        started = threading.Barrier(9)
        closed = threading.Event()

        def until_refused(
            run: Callable[[Pixels], npt.NDArray[np.float32]] = classifier.run,
            expected: bytes = expected,
            started: threading.Barrier = started,
            closed: threading.Event = closed,
        ) -> bool:
            started.wait(PATIENCE_S)
            while True:
                late = closed.is_set()
                try:
                    found = run(golden_pixels)
                except BackendError as error:
                    return "is closed" in str(error)
                if late or found.tobytes() != expected:
                    return False

        with ThreadPoolExecutor(8) as pool:
            workers = [pool.submit(until_refused) for _ in range(8)]
            started.wait(PATIENCE_S)
            time.sleep(0.002 * attempt)
            classifier.close()
            closed.set()
            assert all(worker.result(PATIENCE_S) for worker in workers)


@every_engine
def test_threads_that_come_and_go_leave_nothing_behind(tiny_bundle: Path, golden_pixels: Pixels, artefact: str) -> None:
    with load(tiny_bundle, artefact, threads=1) as classifier:
        for _ in range(50):
            thread = threading.Thread(target=classifier.run, args=(golden_pixels,))
            thread.start()
            thread.join()
        # One after the other: one request of the engine is enough for all.
        assert len(getattr(classifier._backend, "_idle", ())) <= 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not list a process's threads")
@every_engine
def test_closed_engines_leave_no_threads(tiny_bundle: Path, golden_pixels: Pixels, artefact: str) -> None:
    def cycle() -> int:
        with load(tiny_bundle, artefact, threads=2, streams=2) as classifier:
            classifier.run(golden_pixels)
        gc.collect()
        return len(list(Path("/proc/self/task").iterdir()))

    # Engines keep some for themselves from the first use on.
    first = [cycle() for _ in range(3)][-1]
    assert max(cycle() for _ in range(10)) <= first + 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="this system does not tell a process's memory")
@every_engine
def test_closed_engines_leave_no_memory(tiny_bundle: Path, golden_pixels: Pixels, artefact: str) -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    def cycles(count: int) -> float:
        for _ in range(count):
            with load(tiny_bundle, artefact, threads=1) as classifier:
                classifier.run(golden_pixels)
        gc.collect()
        return resident_mb()

    before = cycles(10)
    # A session of this model takes about half a megabyte.
    assert cycles(40) - before < 8


def test_more_runs_than_streams_wait_for_their_turn(tiny_opened: Bundle, golden_pixels: Pixels) -> None:
    model, _ = tiny_opened.artefact_bytes(tiny_opened.manifest.artefact("model.fp32"))
    backend = load_backend("onnxruntime", LoadRequest(model, None, "fp32", EngineSettings(streams=2), "the model"))
    turns = backend._turns  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        with turns, turns:  # as two runs would
            waiting = pool.submit(backend.run, {"pixels": golden_pixels})
            time.sleep(0.1)
            assert not waiting.done()
        assert waiting.result(PATIENCE_S)[0].shape == (3, 4)
    backend.close()


# Warming up


@every_engine
def test_warm_up_runs_the_engine(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, artefact: str) -> None:
    with load(tiny_bundle, artefact, threads=1) as classifier:
        sizes: list[int] = []
        run = classifier._backend.run

        def counted(feeds: dict[str, Pixels], clock: object) -> object:
            sizes.append(len(feeds["pixels"]))
            return run(feeds, clock)

        monkeypatch.setattr(classifier._backend, "run", counted)
        classifier.warm_up()
        assert sizes == [1, 1, 1]
        classifier.warm_up(2, batch=5)
        assert sizes == [1, 1, 1, 1, 1, 5, 5]


@pytest.mark.parametrize(("n", "batch"), [(0, 1), (1, 0), (-1, 1)])
def test_warm_up_of_nothing_is_refused(tiny_bundle: Path, n: int, batch: int) -> None:
    with load(tiny_bundle, "model.fp32", threads=1) as classifier, pytest.raises(UsageError, match="at least one"):
        classifier.warm_up(n, batch)


def test_closed_classifier_does_not_warm_up(tiny_bundle: Path) -> None:
    classifier = load(tiny_bundle, "model.fp32", threads=1)
    classifier.close()
    with pytest.raises(BackendError, match="is closed"):
        classifier.warm_up()
