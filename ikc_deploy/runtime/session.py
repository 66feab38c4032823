"""The loop of a bundle (`ikc_deploy.loops`) on preallocated buffers for one frame shape.

A `Session` owns the buffers; each is allocated once, when it is first needed. Every step has its
own code buffer (a few bytes), so all codes can be read after the loop, and no step waits for a
copy. `sr` and `frame` are overwritten by every step. The networks run as launch sequences on these
buffers. If the backend supports it, a sequence is captured as one graph after its first run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR, GraphStep
from ikc_deploy.runtime.backends.base import (
    Backend,
    Binding,
    BoundGraph,
    Buffer,
    CapturedGraph,
    Event,
)
from ikc_deploy.runtime.frames import LAYOUTS, FrameShape


@dataclass(frozen=True)
class StageLaunch:
    """A network to enqueue at one step of the loop."""

    stage: str
    """Name of the network's graph."""
    step: int
    """Step of the loop."""
    graph: BoundGraph
    """The graph, bound to the session's buffers."""


class LaunchSequence:
    """A sequence of launches with events between them; captured as one graph after its first run.

    Args:
        backend: The backend that runs the launches.
        launches: Launches in order.
        image: Name of the graph that computes images.
    """

    def __init__(self, backend: Backend, launches: Sequence[StageLaunch], image: str) -> None:
        self.launches = tuple(launches)
        self._image = image
        self._backend = backend
        self._events: list[Event] = []
        self._ran = False
        self._captured: CapturedGraph | None = None

    def run(self, after_image: Callable[[int], None] | None = None) -> dict[str, float]:
        """Enqueue all launches and wait for them.

        Args:
            after_image: Called with the step after every SR pass, to read every image.

        Returns:
            Milliseconds by network.

        Raises:
            BackendError: The device failed.
        """
        try:
            return self._run() if after_image is None else self._run_watched(after_image)
        except BaseException:
            # Work that was queued before the failure still uses the session's buffers.
            with suppress(BackendError):
                self._backend.synchronize()
            raise

    def _run(self) -> dict[str, float]:
        self.queue()
        self._backend.synchronize()
        times = _times(self._backend, self.launches, list(pairwise(self._events)))
        if not self._ran:
            # Not captured earlier, because libraries allocate memory on their first call.
            graphs = [launch.graph for launch in self.launches]
            self._captured = self._backend.capture(graphs, self._enqueue)
            self._ran = True
        return times

    def queue(self) -> None:
        """Enqueue all launches, or their captured graph, without waiting."""
        if not self._events:
            self._events = [self._backend.create_event() for _ in range(len(self.launches) + 1)]
        if self._captured is None:
            self._enqueue()
        else:
            self._captured.launch()

    def _run_watched(self, after_image: Callable[[int], None]) -> dict[str, float]:
        spans: list[tuple[Event, Event]] = []
        for launch in self.launches:
            spans.append((self._backend.create_event(), self._backend.create_event()))
            spans[-1][0].record()
            launch.graph.enqueue()
            spans[-1][1].record()
            if launch.stage == self._image:
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
        bundle: The bundle whose graphs run.
        shape: Batch, height and width of the LR frames.
        iters: Maximum number of corrections.
    """

    def __init__(self, backend: Backend, bundle: Bundle, shape: FrameShape, iters: int) -> None:
        self.iters = iters
        self.loop = bundle.loop
        self._backend = backend
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._shape = shape
        self._layout = LAYOUTS[self._manifest.io]
        code_shape = (shape.batch, self._manifest.code_size)
        self.lr = backend.allocate(shape.array(self._manifest.io), self._layout.dtype)
        self.codes = [backend.allocate(code_shape, np.float32) for _ in range(iters + 1)]
        self._sequences: dict[tuple[GraphStep, ...], LaunchSequence] = {}

    @cached_property
    def sr(self) -> Buffer:
        """SR image that the corrector reads; allocated on first use, because P does not need it."""
        shape = self._shape.array("float", self._manifest.scale)
        return self._backend.allocate(shape, self._layout.sr_dtype(self._manifest.precision))

    @cached_property
    def frame(self) -> Buffer:
        """SR image in the frames' layout; the buffer `sr` itself if the SR graph has one output."""
        if FRAME not in self.loop.outputs(self.loop.image.name, self._manifest.io):
            return self.sr
        shape = self._shape.array(self._manifest.io, self._manifest.scale)
        return self._backend.allocate(shape, self._layout.dtype)

    def upload(self, frames: Any, codes: NDArray[np.float32] | None = None) -> None:
        """Queue copies of frames to `lr` and of codes to `codes[0]`.

        Args:
            frames: A host array or `DeviceArray` with the shape and dtype of `lr`.
            codes: `[N,code_size]` float32; None for the loop's initial code, if it is constant.
        """
        self._backend.upload(frames, self.lr)
        if codes is None:
            self.start()
        else:
            self._backend.upload(codes, self.codes[0])

    def start(self) -> None:
        """Queue a copy of the loop's initial code to `codes[0]`, if it is constant."""
        if self.loop.start is None:
            self._backend.upload(self._first_codes, self.codes[0])

    @cached_property
    def _first_codes(self) -> NDArray[np.float32]:
        first = np.broadcast_to(self._bundle.basis.delta_code(), self.codes[0].shape)
        return np.ascontiguousarray(first, np.float32)

    def blind(self) -> LaunchSequence:
        """Return the sequence of the whole loop: the initial code, then `iters` corrections."""
        return self._sequence(self.loop.blind(self.iters))

    def predict(self) -> LaunchSequence:
        """Return the sequence that computes the initial code; empty if that is constant."""
        return self._sequence(self.loop.predict())

    def correct(self, corrections: int) -> LaunchSequence:
        """Return the sequence of `corrections` (at most `iters`) from `codes[0]`.

        It ends with a code; the image for that code is not computed.
        """
        return self._sequence(self.loop.correct(corrections))

    def correction(self, step: int) -> LaunchSequence:
        """Return the sequence of one correction, from `codes[step - 1]` to `codes[step]`."""
        return self._sequence(self.loop.correction(step))

    def image(self, step: int) -> LaunchSequence:
        """Return the sequence of one SR pass with `codes[step]`."""
        return self._sequence(((self.loop.image.name, step),))

    def _sequence(self, steps: tuple[GraphStep, ...]) -> LaunchSequence:
        if steps not in self._sequences:
            graphs = self._backend.bind([self._binding(stage, step) for stage, step in steps])
            stages = [
                StageLaunch(stage, step, graph)
                for (stage, step), graph in zip(steps, graphs, strict=True)
            ]
            self._sequences[steps] = LaunchSequence(self._backend, stages, self.loop.image.name)
        return self._sequences[steps]

    def _binding(self, stage: str, step: int) -> Binding:
        graph = self.loop.graph(stage)
        if graph is self.loop.image:
            images = {SR: self.sr, FRAME: self.frame}
            outputs = {name: images[name] for name in self.loop.outputs(stage, self._manifest.io)}
            return Binding(stage, {LR: self.lr, CODE: self.codes[step]}, outputs)
        if graph is self.loop.start:
            return Binding(stage, {LR: self.lr}, {CODE: self.codes[step]})
        read = {LR: self.lr, SR: self.sr, CODE: self.codes[step - 1]}
        inputs = {name: read[name] for name in graph.inputs}
        return Binding(stage, inputs, {NEXT_CODE: self.codes[step]})


def _times(
    backend: Backend, launches: Sequence[StageLaunch], spans: Sequence[tuple[Event, Event]]
) -> dict[str, float]:
    times = dict.fromkeys((launch.stage for launch in launches), 0.0)
    for launch, (start, end) in zip(launches, spans, strict=True):
        times[launch.stage] += backend.elapsed_ms(start, end)
    return times
