"""Many pictures: decoded, prepared and labelled in several threads at once, results in order, memory bounded.

Each thread takes a picture all the way: file, pixels, engine, labels. So no pixels wait between stages, no thread waits for
another, and what is held per picture in flight is its name and its result.
"""

from __future__ import annotations

import atexit
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from edgewright.runtime.console import warn
from edgewright.runtime.errors import ImageError, UsageError
from edgewright.runtime.images import ImageSource
from edgewright.runtime.picture import Picture

if TYPE_CHECKING:
    from edgewright.runtime.classifier import Prediction

__all__ = ["PER_WORKER", "Result", "in_order"]

PER_WORKER = 4
"""Batches in flight per worker, by default: one at work, the others so that one slow picture does not stop the rest."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one picture: a prediction, or the reason why there is none.

    Attributes:
        source: The picture, as it was given.
        prediction: None if it cannot be read.
        error: None if it can.
    """

    source: ImageSource | Picture
    prediction: Prediction | None
    error: ImageError | None


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Done]],
    items: Iterable[Item],
    *,
    workers: int,
    batch: int = 1,
    in_flight: int | None = None,
) -> Generator[Done, None, None]:
    """`work` on `batch` items at a time in `workers` threads; yields what it returns for each item, in the order of `items`.

    `items` is read in the caller's thread and only as far as needed: at most `in_flight` items are taken and not yet
    yielded, and none is taken while the next result is ready. With `in_flight=1` each is yielded before another is taken.

    An exception of `work` or of `items` is raised where its result would have been, after all results before it. Closing
    the generator, or an interrupt, waits for what is at work, and for nothing else.

    Args:
        work: Returns one result per item.
        items: May be endless.
        workers: Threads, at least 1.
        batch: At least 1.
        in_flight: At least `batch`; by default 4 batches per worker.

    Raises:
        UsageError: a number that is too small.
    """
    limit = PER_WORKER * workers * batch if in_flight is None else in_flight
    if min(workers, batch) < 1 or limit < batch:
        raise UsageError(
            f"Found {workers} workers, batches of {batch}, {limit} in flight. Expected at least 1 worker, batches of at "
            "least 1, and at least one batch in flight."
        )
    return _run(work, items, workers, batch, limit)


def _run(
    work: Callable[[Sequence[Item]], Sequence[Done]], items: Iterable[Item], workers: int, batch: int, limit: int
) -> Generator[Done, None, None]:
    pending: deque[_Task[Item, Done]] = deque()
    held = 0
    failure: list[Exception] = []
    crew = _Crew(work)
    try:
        crew.begin(workers)
        for part in _parts(items, batch, failure):
            pending.append(crew.hand_out(part))
            held += len(part)
            while pending and (pending[0].is_done() or held + batch > limit):
                # Held until the last of them is yielded: this goes on only then.
                yield from pending[0].results()
                held -= len(pending.popleft().part)
        while pending:
            yield from pending.popleft().results()
        if failure:
            raise failure.pop()
    finally:
        crew.dismiss()


def _parts(items: Iterable[Item], batch: int, failure: list[Exception]) -> Iterator[list[Item]]:
    """Lists of `batch` items, the last one shorter; what `items` raises ends them and is put into `failure`."""
    part: list[Item] = []
    try:
        for item in items:
            part.append(item)
            if len(part) == batch:
                yield part
                part = []
    except Exception as error:
        failure.append(error)
    if part:
        yield part


class _Task(Generic[Item, Done]):
    """A batch, and what became of it."""

    def __init__(self, part: Sequence[Item]) -> None:
        self.part = part
        self._open = threading.Lock()  # taken until it is done
        self._open.acquire()
        self._results: Sequence[Done] = ()
        self._error: BaseException | None = None

    def do(self, work: Callable[[Sequence[Item]], Sequence[Done]]) -> None:
        try:
            self._results = work(self.part)
        except BaseException as error:  # whatever it is, it belongs to whoever asked for the result
            self._error = error
        self._open.release()

    def is_done(self) -> bool:
        return not self._open.locked()

    def results(self) -> Sequence[Done]:
        """Waits for them; raises what the work raised."""
        self._open.acquire()
        if self._error is not None:
            raise self._error
        return self._results


class _Crew(Generic[Item, Done]):
    """Threads that work until they are dismissed.

    Not an executor of concurrent.futures: it takes locks with `with` in the caller's thread, and an interrupt between taking
    one and entering its block leaves it taken for ever, the workers waiting for it, and the program for them
    (https://github.com/python/cpython/issues/74174 and 148874). `Thread.start` does the same. Here the caller's thread
    uses nothing but methods of queues and locks that are written in C, and another thread starts the workers.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Done]]) -> None:
        self._work = work
        self._tasks: SimpleQueue[_Task[Item, Done] | None] = SimpleQueue()
        self._threads: SimpleQueue[list[threading.Thread]] = SimpleQueue()
        self._starter: int | None = None
        self._dismissed = False

    def begin(self, workers: int) -> None:
        # Should nobody ever close the generator, the threads end before the interpreter does.
        atexit.register(self.dismiss)
        self._starter = start_new_thread(self._start, (workers,))

    def _start(self, workers: int) -> None:
        threads: list[threading.Thread] = []
        for number in range(workers):
            thread = threading.Thread(target=self._serve, name=f"edgewright-stream-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more of them
                break
            threads.append(thread)
        if len(threads) < workers:
            warn(f"the system lets {len(threads)} of {workers} threads start; fewer pictures are labelled at once")
        self._threads.put(threads)
        if not threads:
            self._serve()

    def _serve(self) -> None:
        while not self._dismissed and (task := self._tasks.get()) is not None and not self._dismissed:
            task.do(self._work)

    def hand_out(self, part: Sequence[Item]) -> _Task[Item, Done]:
        task: _Task[Item, Done] = _Task(part)
        self._tasks.put(task)
        return task

    def dismiss(self) -> None:
        """Wait for what is at work, and leave the rest undone; once is enough."""
        if self._dismissed:
            return
        self._dismissed = True
        # No starter: an interrupt came first. Should there be threads all the same, they find that they are dismissed.
        if self._starter is not None:
            threads = self._threads.get()
            for _ in range(len(threads) + 1):
                self._tasks.put(None)
            # To their very end: OpenVINO aborts the process if what it keeps per thread is released while the interpreter
            # shuts down.
            for thread in threads:
                thread.join()
        atexit.unregister(self.dismiss)
