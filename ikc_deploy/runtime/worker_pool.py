"""`WorkerPool`: the workers of an `Upscaler` on its devices, and the pipelines that they form."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """A frame that waits for a worker."""

    check: Callable[[], UpscaleCall]
    """Checks the call when a worker begins it, so that its errors are its result's."""
    turn: Turn | None = None
    """Turn of the frame in its clip."""
    finish: Callable[[Result], Any] | None = None
    """Makes the output of the result, in the thread of the worker; None to return the result."""

    def end(self) -> None:
        """Let the next frame of the clip take its turn."""
        if self.turn is not None:
            self.turn.end()


class WorkerPool:
    """Workers on one or several devices, created when they are needed.

    Args:
        new_worker: Creates a worker on a backend, which the worker owns.
        devices: A backend on each device; the workers own them.
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
        """Worker of single calls; `BackendError` in a process that was forked."""
        self._check_process()
        return self._workers[0]

    def pipeline(self, streams: int) -> Pipeline[QueuedFrame, Any]:
        """Return the pipeline that processes `streams` frames at the same time on each device.

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
                run = [_run_by(worker) for worker in self._workers[:width]]
                self._pipelines[width] = Pipeline(run, FRAMES_PER_STREAM * width)
            return self._pipelines[width]

    def close(self) -> None:
        """Finish frames in progress, cancel waiting ones, and close the workers.

        In a process that was forked, it does nothing: threads and devices are those of the parent.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            for pipeline in self._pipelines.values():
                pipeline.close()
            self._pipelines.clear()
            # Clones before the backends that they were cloned from.
            for worker in reversed(self._workers):
                worker.close()

    def _check_process(self) -> None:
        # Threads are not forked: what waits for one would wait forever.
        if os.getpid() != self._process:
            raise BackendError(
                "an Upscaler cannot be used in a process that was forked after it was loaded; "
                'start workers with multiprocessing.get_context("spawn"), or load it in them only'
            )


def _run_by(worker: UpscalingWorker) -> Callable[[QueuedFrame], Any]:
    def run(job: QueuedFrame) -> Any:
        result = worker(job.check())
        return result if job.finish is None else job.finish(result)

    return run
