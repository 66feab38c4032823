"""The correction loop (IKC, Algorithm 1) on the buffers of one frame shape.

    h0 = P(lr);  sr0 = F(lr, h0);  for i in 1..t:  hi = C(sr(i-1), h(i-1));  sri = F(lr, hi)

A `Session` owns the buffers, each allocated once, when a program first needs it. Every step has its
own code buffer (a few bytes), so that all codes can be read after the loop and no step waits for a
copy. Every step overwrites `sr` and `frame`. A session's launch sequences run on these buffers. A
backend that can captures a sequence after its first run, and then launches all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np

from ikc_deploy.bundle.manifest import Manifest
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.base import (
    Backend,
    Binding,
    BoundGraph,
    Buffer,
    CapturedGraph,
    Event,
)
from ikc_deploy.runtime.frames import LAYOUTS, FrameShape

STAGES: Final = ("predictor", "sftmd", "corrector")
"""Names of the networks in timings."""

StageStep = tuple[str, int]
"""A network and the step of the loop at which it runs; C of step i computes code i."""


@dataclass(frozen=True)
class StageLaunch:
    """One graph to enqueue: its network, and its step of the loop."""

    stage: str
    step: int
    graph: BoundGraph


class LaunchSequence:
    """Launches in order, the events between them, and their captured graph after the first run.

    Args:
        backend: Runs the launches.
        launches: Launches in order.
    """

    def __init__(self, backend: Backend, launches: Sequence[StageLaunch]) -> None:
        self.launches = tuple(launches)
        self._backend = backend
        self._events: list[Event] = []
        self._ran = False
        self._captured: CapturedGraph | None = None

    def run(self) -> dict[str, float]:
        """Enqueue everything and wait; return milliseconds by stage."""
        self.queue()
        self._backend.synchronize()
        times = _times(self._backend, self.launches, list(pairwise(self._events)))
        if not self._ran:
            # Capture after one run, because libraries allocate memory on their first call.
            graphs = [launch.graph for launch in self.launches]
            self._captured = self._backend.capture(graphs, self._enqueue)
            self._ran = True
        return times

    def queue(self) -> None:
        """Enqueue everything, captured or launch by launch, without waiting."""
        if not self._events:
            self._events = [self._backend.create_event() for _ in range(len(self.launches) + 1)]
        if self._captured is None:
            self._enqueue()
        else:
            self._captured.launch()

    def run_watched(self, after_image: Callable[[int], None]) -> dict[str, float]:
        """Run launch by launch, with a call of `after_image(step)` after each SR pass."""
        spans: list[tuple[Event, Event]] = []
        for launch in self.launches:
            spans.append((self._backend.create_event(), self._backend.create_event()))
            spans[-1][0].record()
            launch.graph.enqueue()
            spans[-1][1].record()
            if launch.stage == "sftmd":
                after_image(launch.step)
        self._backend.synchronize()
        return _times(self._backend, self.launches, spans)

    def _enqueue(self) -> None:
        self._events[0].record()
        for launch, event in zip(self.launches, self._events[1:], strict=True):
            launch.graph.enqueue()
            event.record()


class Session:
    """The buffers and launch sequences for frames of one shape.

    Args:
        backend: Allocates the buffers and runs the graphs.
        manifest: The manifest of the bundle.
        shape: Batch, height and width of the LR frames.
        iters: Maximum number of corrections.
    """

    def __init__(self, backend: Backend, manifest: Manifest, shape: FrameShape, iters: int) -> None:
        self.iters = iters
        self._backend = backend
        self._manifest = manifest
        self._shape = shape
        self._layout = LAYOUTS[manifest.io]
        code_shape = (shape.batch, manifest.code_size)
        self.lr = backend.allocate(shape.array(manifest.io), self._layout.dtype)
        self.codes = [backend.allocate(code_shape, np.float32) for _ in range(iters + 1)]
        self._sequences: dict[tuple[StageStep, ...], LaunchSequence] = {}

    @cached_property
    def sr(self) -> Buffer:
        """SR image that the corrector reads; allocated on first use, as P does not need it."""
        shape = self._shape.array("float", self._manifest.scale)
        return self._backend.allocate(shape, self._layout.sr_dtype(self._manifest.precision))

    @cached_property
    def frame(self) -> Buffer:
        """SR image in the layout of the frames: `sr` itself with io "float"."""
        if self._layout.image == "sr":
            return self.sr
        shape = self._shape.array(self._manifest.io, self._manifest.scale)
        return self._backend.allocate(shape, self._layout.dtype)

    def blind(self) -> LaunchSequence:
        """Return the sequence of IKC's Algorithm 1: P, F, then `iters` times C, F."""
        loop = [pair for i in range(1, self.iters + 1) for pair in (("corrector", i), ("sftmd", i))]
        return self._sequence(("predictor", 0), ("sftmd", 0), *loop)

    def predict(self) -> LaunchSequence:
        """Return the sequence of P alone, which writes `codes[0]`."""
        return self._sequence(("predictor", 0))

    def correct(self, corrections: int) -> LaunchSequence:
        """Return the sequence of `corrections` (at most `iters`) times F, C, from `codes[0]`.

        It ends with a code, without the image of that code.
        """
        return self._sequence(
            *(pair for i in range(corrections) for pair in (("sftmd", i), ("corrector", i + 1)))
        )

    def known(self) -> LaunchSequence:
        """Return the sequence of F alone, with the code that was uploaded to `codes[0]`."""
        return self._sequence(("sftmd", 0))

    def _sequence(self, *steps: StageStep) -> LaunchSequence:
        if steps not in self._sequences:
            graphs = self._backend.bind([self._binding(stage, step) for stage, step in steps])
            stages = [
                StageLaunch(stage, step, graph)
                for (stage, step), graph in zip(steps, graphs, strict=True)
            ]
            self._sequences[steps] = LaunchSequence(self._backend, stages)
        return self._sequences[steps]

    def _binding(self, stage: str, step: int) -> Binding:
        code = self.codes[step]
        if stage == "predictor":
            return Binding(stage, {"lr": self.lr}, {"code": code})
        if stage == "sftmd":
            images = {"sr": self.sr, self._layout.image: self.frame}
            return Binding(stage, {"lr": self.lr, "code": code}, images)
        before = self.codes[step - 1]
        return Binding(stage, {"sr": self.sr, "code": before}, {"next_code": code})


def run(
    backend: Backend, sequence: LaunchSequence, after_image: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Enqueue a launch sequence and wait for it.

    Args:
        backend: The backend of the sequence.
        sequence: The launches.
        after_image: Called with the step after each SR pass, for callers that read every image.

    Returns:
        Milliseconds by stage.

    Raises:
        BackendError: The device failed.
    """
    try:
        return sequence.run() if after_image is None else sequence.run_watched(after_image)
    except BaseException:
        # Launches that were queued before the failure still use the session's buffers.
        with suppress(BackendError):
            backend.synchronize()
        raise


def _times(
    backend: Backend, launches: Sequence[StageLaunch], spans: Sequence[tuple[Event, Event]]
) -> dict[str, float]:
    times = dict.fromkeys(STAGES, 0.0)
    for launch, (start, end) in zip(launches, spans, strict=True):
        times[launch.stage] += backend.elapsed_ms(start, end)
    return times
