"""`Pipeline`: items in, results out, in order and in bounded memory.

Everything that upscales more than one frame uses it: `Upscaler.submit`, `Upscaler.stream`, clips
and cameras. Each worker has its own thread. Items are assigned round-robin, so that one worker can
wait for a copy while another computes. A run reads its items from an iterator:

    items > (reader thread, if the source should not wait) > workers > results, in order

Results are computed on demand, or up to `ahead` of them in advance.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, Generic, Literal, TypeVar

from ikc_deploy.errors import InputError
from ikc_deploy.runtime.bounded_queue import BoundedQueue

CAPACITY: Final = 3
"""Capacity of the queue between two stages; small, because 4K frames are large."""

Reading = Literal["on request", "ahead", "newest"]
"""When a run reads its items: in the caller's thread, when a worker is free; in a reader thread, up
to `CAPACITY` in advance; or in a reader thread that keeps only the newest unprocessed item."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")
T = TypeVar("T")


@dataclass(frozen=True)
class RunSettings:
    """When a run reads its items, how far ahead it computes, and what ends it."""

    reading: Reading = "on request"
    """When items are read."""
    ahead: int = 0
    """Number of results to compute before they are requested; 0 to compute on demand."""
    stop: threading.Event | None = None
    """Event that ends the run after the items in progress; None for no such event."""


class ResultFuture(Generic[T]):
    """The future result of `Upscaler.submit`.

    Args:
        future: Future of the worker's thread.
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it.

        Args:
            timeout: Maximum time to wait in seconds; None for no limit.

        Returns:
            The result.

        Raises:
            TimeoutError: The result is not ready yet; call again to keep waiting.
            InputError: The upscaler was closed before the frame was processed.
            Exception: Any exception raised while the frame was processed.
        """
        try:
            return self._future.result(timeout)
        except CancelledError as error:
            raise InputError(
                "the Upscaler was closed before this frame was upscaled; submit it to a new one"
            ) from error

    def done(self) -> bool:
        """Return whether `result` would return or raise immediately."""
        return self._future.done()


class Pipeline(AbstractContextManager["Pipeline[_In, _Out]"], Generic[_In, _Out]):
    """Workers that process items concurrently, one thread per worker.

    Args:
        workers: Functions that return the result of an item; the caller owns them.
        bound: Maximum number of unfinished items.
    """

    def __init__(self, workers: Sequence[Callable[[_In], _Out]], bound: int) -> None:
        self._lanes = [(worker, ThreadPoolExecutor(1, "ikc-worker")) for worker in workers]
        self._turns = cycle(self._lanes)
        self._places = threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, item: _In, ended: Callable[[], bool] = lambda: False) -> Future[_Out]:
        """Assign an item to the next worker; block while `bound` items are unfinished.

        Args:
            item: The item.
            ended: Called when the worker is about to start. If it returns True, the item is
                dropped, and its future raises `CancelledError`.

        Returns:
            The future of its result.

        Raises:
            InputError: The pipeline is closed, or was closed while waiting.
        """

        def job() -> _Out:
            if ended():
                raise CancelledError
            return worker(item)

        self._places.acquire()
        with self._lock:
            if self._closed:
                self._places.release()
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            worker, thread = next(self._turns)
            future = thread.submit(job)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def run(
        self,
        items: Iterable[Any],
        prepare: Callable[[Any], _In],
        settings: RunSettings | None = None,
        done: Callable[[_In], None] | None = None,
    ) -> PipelineRun[_Out]:
        """Return an iterator over the results of items, in order.

        Args:
            items: The source; closed at the end if it is a generator.
            prepare: Converts an item of the source to an item for the workers; called in order.
            settings: When items are read and results computed; None to do both on request.
            done: Called, in any thread, with each prepared item once it has finished, failed or
                been dropped.
        """
        chosen = settings or RunSettings()
        reading, stop = chosen.reading, chosen.stop or threading.Event()
        # The newest item is read when its result is requested, not before.
        width = 1 if reading == "newest" and not chosen.ahead else len(self._lanes)
        source = (
            _ItemSource(items) if reading == "on request" else _ItemReader(items, reading, stop)
        )

        def start(item: Any, ended: Callable[[], bool]) -> Future[_Out]:
            prepared = prepare(item)
            try:
                future = self.submit(prepared, ended)
            except InputError:
                if done is not None:
                    done(prepared)
                raise
            if done is not None:
                future.add_done_callback(lambda _: done(prepared))
            return future

        return PipelineRun(source, start, width, chosen.ahead, stop)

    def close(self) -> None:
        """Finish the items in progress, cancel the others, and end the threads."""
        with self._lock:
            self._closed = True
        for _, thread in self._lanes:
            thread.shutdown(wait=False, cancel_futures=True)
        for _, thread in self._lanes:
            thread.shutdown()

    def __exit__(self, *_: object) -> None:
        """Close the pipeline at the end of the `with` block."""
        self.close()


class PipelineRun(AbstractContextManager["PipelineRun[_Out]"], Generic[_Out]):
    """An iterator over the results of one run, in order.

    Several threads may iterate; each result goes to one of them. An error of a worker or of the
    source is raised in place of the result. Iteration may continue after an error of a worker.
    Leaving the `with` block closes the run and waits for the items in progress.

    Args:
        source: The source of the items.
        start: Assigns an item to a worker, and returns the future of its result. Its second
            argument is called when the worker is about to start, and drops the item if True.
        width: Maximum number of items that are assigned to workers.
        ahead: Number of results to compute before they are requested; 0 to compute on demand.
        stop: Event that ends the run.
    """

    def __init__(
        self,
        source: _ItemSource,
        start: Callable[[Any, Callable[[], bool]], Future[_Out]],
        width: int,
        ahead: int,
        stop: threading.Event,
    ) -> None:
        self.wait = 0.0
        """Seconds spent waiting for the source to yield the item of the last returned result."""
        self._source = source
        self._start = start
        self._width = width
        self._stop = stop
        self._started: deque[tuple[Future[_Out], float]] = deque()
        self._unfinished: set[Future[_Out]] = set()
        self._turn = threading.Lock()
        self._closed = False
        self._free = threading.Semaphore(width)
        self._ready = BoundedQueue[tuple[Future[_Out], float]](max(1, ahead))
        self._arrived = self._ready.items()
        self._feeder: threading.Thread | None = None
        if ahead:
            self._feeder = threading.Thread(target=self._feed, name="ikc-feeder", daemon=True)
            self._feeder.start()

    @property
    def taken(self) -> int:
        """Number of items read from the source."""
        return self._source.taken

    @property
    def dropped(self) -> int:
        """Number of items that were replaced by newer ones."""
        return self._source.dropped

    def __iter__(self) -> Iterator[_Out]:
        """Return the run itself; it can be iterated only once."""
        return self

    def __next__(self) -> _Out:
        """Return the next result, or raise its error or StopIteration."""
        with self._turn:
            future, self.wait = self._next()
            try:
                return ResultFuture(future).result()
            except InputError:
                if self._ended() and _was_dropped(future):
                    raise StopIteration from None
                raise

    def close(self, wait: bool = True) -> None:
        """Stop reading items, and drop those that no worker has started; may be called twice.

        Args:
            wait: Whether to wait for the run's threads and the items in progress.
        """
        self._closed = True
        self._source.close()
        self._ready.cancel()
        self._free.release()
        if wait:
            self._source.join()
            if self._feeder is not None:
                self._feeder.join()
            wait_for(tuple(self._unfinished))

    def __exit__(self, *_: object) -> None:
        """Close the run at the end of the `with` block."""
        self.close()

    def _ended(self) -> bool:
        return self._closed or self._stop.is_set()

    def _next(self) -> tuple[Future[_Out], float]:
        if self._feeder is not None:
            return next(self._arrived)
        while len(self._started) < self._width and not self._closed:
            try:
                self._started.append(self._take())
            except StopIteration:
                break
        if self._closed or not self._started:
            raise StopIteration
        return self._started.popleft()

    def _take(self) -> tuple[Future[_Out], float]:
        """Read the next item, and assign it to a worker."""
        asked = time.perf_counter()
        try:
            item = self._source.take()
            wait = time.perf_counter() - asked
            future = self._start(item, self._ended)
            self._unfinished.add(future)
            future.add_done_callback(self._unfinished.discard)
            return future, wait
        except StopIteration:
            raise
        except BaseException as error:  # raised again in its place
            failed: Future[_Out] = Future()
            failed.set_exception(error)
            return failed, 0.0

    def _feed(self) -> None:
        # Read only when a worker is free, so that the item is the newest one at that time.
        with suppress(StopIteration):
            while not self._closed:
                self._free.acquire()
                if self._closed:
                    break
                started = self._take()
                started[0].add_done_callback(lambda _: self._free.release())
                if not self._ready.put(started):
                    break
        self._ready.finish()


class _ItemSource:
    """Items that are read on demand."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.taken = 0
        self._items = iter(items)
        self._closed = False
        self._in_use = threading.Lock()

    @property
    def dropped(self) -> int:
        return 0

    def take(self) -> Any:
        try:
            with self._in_use:
                if self._closed:
                    raise StopIteration
                item = next(self._items)
        except BaseException:
            # Like a generator, a source that has raised has ended.
            self._closed = True
            raise
        self.taken += 1
        if self._closed:
            # Closed meanwhile.
            self.close()
            raise StopIteration
        return item

    def close(self) -> None:
        """Close the source now, or after the item that another thread is reading."""
        self._closed = True
        if self._in_use.acquire(blocking=False):
            try:
                _close(self._items)
            finally:
                self._in_use.release()

    def join(self) -> None:
        """Return at once: there is no thread."""


class _ItemReader(_ItemSource):
    """Items that a thread reads in advance."""

    def __init__(self, items: Iterable[Any], reading: Reading, stop: threading.Event) -> None:
        super().__init__(items)
        newest = reading == "newest"
        self._queue = BoundedQueue[Any](1 if newest else CAPACITY, newest)
        self._arrived = self._queue.items(stop)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="ikc-reader", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def take(self) -> Any:
        for item in self._arrived:
            return item
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        self._queue.cancel()

    def join(self) -> None:
        self._thread.join()

    def _read(self) -> None:
        try:
            for item in self._items:
                self.taken += 1
                if not self._queue.put(item):
                    break
            _close(self._items)
        except BaseException as error:  # raised again by `take`
            self._error = error
        finally:
            self._queue.finish()


def _was_dropped(future: Future[_Out]) -> bool:
    return future.cancelled() or isinstance(future.exception(), CancelledError)


def _close(items: Iterator[Any]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
