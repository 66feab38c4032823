"""`WorkerPool`: the workers of an `Upscaler` on all of its devices, and pipelines of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.pipeline import Pipeline
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.tracking import Turn
from ikc_deploy.runtime.worker import UpscaleCall, UpscalingWorker

FRAMES_PER_STREAM: Final = 2
"""Maximum number of unfinished submitted frames for each stream: one in progress, one waiting."""


@dataclass(frozen=True)
class QueuedFrame:
    """A frame in the queue of a worker."""

    check: Callable[[], UpscaleCall]
    """Validates the frame and returns the call. The worker runs it, so its errors are those of the
    result."""
    turn: Turn | None = None
    """Turn of the frame in its clip."""
    finish: Callable[[Result], Any] | None = None
    """Converts the result to an output, in the worker's thread; None returns the result itself."""

    def end(self) -> None:
        """End the turn of the frame, if it has one."""
        if self.turn is not None:
            self.turn.end()


class WorkerPool:
    """Workers on one or more devices, created on demand.

    Args:
        new_worker: Returns a new worker that owns the given backend.
        devices: One backend per device; the workers own them.
    """

    def __init__(
        self, new_worker: Callable[[Backend], UpscalingWorker], devices: Sequence[Backend]
    ) -> None:
        self.devices = devices
        self._new_worker = new_worker
        self._workers = [new_worker(each) for each in devices]
        self._pipelines: dict[int, Pipeline[QueuedFrame, Any]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()

    @property
    def first(self) -> UpscalingWorker:
        """Worker that runs single calls; raises `BackendError` in a forked process."""
        self._check_process()
        return self._workers[0]

    def pipeline(self, streams: int) -> Pipeline[QueuedFrame, Any]:
        """Return the pipeline that processes `streams` frames concurrently on each device.

        Raises:
            InputError: The pool is closed.
            BackendError: The process was forked after the pool was created.
        """
        self._check_process()
        width = streams * len(self.devices)
        with self._lock:
            if self._closed:
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            # In the order of the devices, so that frames alternate between them.
            while len(self._workers) < width:
                device = self.devices[len(self._workers) % len(self.devices)]
                self._workers.append(self._new_worker(device.clone()))
            if width not in self._pipelines:
                run = [partial(_run_queued, worker) for worker in self._workers[:width]]
                self._pipelines[width] = Pipeline(run, FRAMES_PER_STREAM * width)
            return self._pipelines[width]

    def close(self) -> None:
        """Finish the frames in progress, cancel the queued ones, and close the workers.

        Does nothing in a forked process, because threads and devices belong to the parent.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            for pipeline in self._pipelines.values():
                pipeline.close()
            self._pipelines.clear()
            # Clones must be closed before the backends they were cloned from.
            for worker in reversed(self._workers):
                worker.close()

    def _check_process(self) -> None:
        # Threads do not survive a fork: waiting for one would block forever.
        if os.getpid() != self._process:
            raise BackendError(
                "an Upscaler cannot be used in a process that was forked after it was loaded; "
                'start workers with multiprocessing.get_context("spawn"), or load it in them only'
            )


def _run_queued(worker: UpscalingWorker, queued: QueuedFrame) -> Any:
    result = worker(queued.check())
    return result if queued.finish is None else queued.finish(result)
