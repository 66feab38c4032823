"""A pool of workers with one thread each, futures of their results, and a bound on pending jobs.

Jobs go to the workers in turn, and each worker does its own in order. While one waits for a copy,
another computes. The bound on jobs that are not done yet holds the caller back, so that memory does
not grow with a source that is faster than the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import cycle
from typing import Generic, TypeVar

from ikc_deploy.errors import InputError

W = TypeVar("W")
T = TypeVar("T")


class ResultFuture(Generic[T]):
    """A result that is on its way."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def result(self, timeout: float | None = None) -> T:
        """The result, waited for at most `timeout` seconds (None: as long as it takes).

        Raises what the job raised; `TimeoutError` if it is not there in time, in which case it
        can be asked for again; `InputError` if the pool was closed first.
        """
        try:
            return self._future.result(timeout)
        except CancelledError as error:
            raise InputError("it was closed before this frame's turn came") from error

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._future.done()


class WorkerPool(Generic[W, T]):
    """Workers of any kind, each used by one thread only."""

    def __init__(self, workers: Sequence[W], bound: int) -> None:
        self._lanes = [(worker, ThreadPoolExecutor(1, "ikc-stream")) for worker in workers]
        self._turns = cycle(self._lanes)
        self._places = threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, job: Callable[[W], T]) -> ResultFuture[T]:
        """Queue `job`, which gets the worker whose turn it is. Waits while `bound` are under way.

        Raises `InputError` if the pool is closed, also while waiting.
        """
        self._places.acquire()
        with self._lock:
            if self._closed:
                self._places.release()
                raise InputError("it is closed; load the bundle again")
            worker, thread = next(self._turns)
            future = thread.submit(job, worker)
        future.add_done_callback(lambda _: self._places.release())
        return ResultFuture(future)

    def close(self) -> None:
        """Finish what has begun, cancel the rest, and end the threads."""
        with self._lock:
            self._closed = True
        for _, thread in self._lanes:
            thread.shutdown(wait=False, cancel_futures=True)
        for _, thread in self._lanes:
            thread.shutdown()
