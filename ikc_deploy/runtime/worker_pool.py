"""A pool of workers with one thread each, futures of their results, and a bound on pending jobs.

Jobs are assigned to the workers in turn, and each worker runs its jobs in order. While one waits
for a copy, another computes. The bound on pending jobs blocks the caller, so that memory does not
grow if a source is faster than the device.
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
    """A result that may not be ready yet; `Upscaler.submit` returns it.

    Args:
        future: Future of the job.
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it.

        Args:
            timeout: Maximum wait in seconds; None for no limit.

        Returns:
            The result of the job.

        Raises:
            TimeoutError: The result is not ready in time; it can be requested again.
            InputError: The pool was closed before the job started.
            Exception: The exception of the job.
        """
        try:
            return self._future.result(timeout)
        except CancelledError as error:
            raise InputError(
                "the Upscaler was closed before this frame was upscaled; submit it to a new one"
            ) from error

    def done(self) -> bool:
        """Return whether `result` would return or raise at once."""
        return self._future.done()


class WorkerPool(Generic[W, T]):
    """A pool of workers of any kind, each used by one thread only.

    Args:
        workers: The workers; the caller owns and closes them.
        bound: Maximum number of jobs that are not finished.
    """

    def __init__(self, workers: Sequence[W], bound: int) -> None:
        self._lanes = [(worker, ThreadPoolExecutor(1, "ikc-stream")) for worker in workers]
        self._turns = cycle(self._lanes)
        self._places = threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, job: Callable[[W], T]) -> ResultFuture[T]:
        """Queue a job; wait while `bound` jobs are not finished.

        Args:
            job: A function of the worker whose turn it is.

        Returns:
            The future of its result.

        Raises:
            InputError: The pool is closed, or was closed while waiting.
        """
        self._places.acquire()
        with self._lock:
            if self._closed:
                self._places.release()
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            worker, thread = next(self._turns)
            future = thread.submit(job, worker)
        future.add_done_callback(lambda _: self._places.release())
        return ResultFuture(future)

    def close(self) -> None:
        """Finish running jobs, cancel waiting ones, and end the threads."""
        with self._lock:
            self._closed = True
        for _, thread in self._lanes:
            thread.shutdown(wait=False, cancel_futures=True)
        for _, thread in self._lanes:
            thread.shutdown()
