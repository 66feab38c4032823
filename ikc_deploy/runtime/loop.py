"""The correction loop (IKC, Algorithm 1) on the buffers of one frame shape.

    h0 = P(lr);  sr0 = F(lr, h0);  for i in 1..t:  hi = C(sr(i-1), h(i-1));  sri = F(lr, hi)

A `Session` owns the buffers, allocated once. Every step has a code buffer of its own (a few bytes
each), so that all codes can be read after the loop and no step waits for a copy; `sr` and `frame`
are overwritten by every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ikc_deploy.bundle import Manifest
from ikc_deploy.runtime.backends.base import Backend, Buffer, Call, sr_dtype
from ikc_deploy.runtime.frames import FrameShape

STAGES: Final = ("predictor", "sftmd", "corrector")
"""The networks, as timings name them."""


@dataclass(frozen=True)
class StageCall:
    """One enqueued graph: which network, at which step of the loop."""

    stage: str
    step: int
    call: Call


class Session:
    """The loop of `iters` corrections for frames of one shape."""

    def __init__(self, backend: Backend, manifest: Manifest, shape: FrameShape, iters: int) -> None:
        frame_dtype = np.uint8 if manifest.io == "uint8" else np.float32
        sr_shape = shape.array("float", manifest.scale)
        code_shape = (shape.batch, manifest.code_size)
        self.iters = iters
        self.lr = backend.allocate(shape.array(manifest.io), frame_dtype)
        self.sr = backend.allocate(sr_shape, sr_dtype(manifest.precision, manifest.io))
        self.codes = [backend.allocate(code_shape, np.float32) for _ in range(iters + 1)]
        outputs = {"sr": self.sr}
        self.frame: Buffer = self.sr
        if manifest.io == "uint8":
            self.frame = backend.allocate(shape.array("uint8", manifest.scale), np.uint8)
            outputs["frame"] = self.frame
        self._predict = backend.bind("predictor", {"lr": self.lr}, {"code": self.codes[0]})
        self._restore = [
            backend.bind("sftmd", {"lr": self.lr, "code": code}, outputs) for code in self.codes
        ]
        self._correct = [
            backend.bind("corrector", {"sr": self.sr, "code": before}, {"next_code": after})
            for before, after in zip(self.codes[:-1], self.codes[1:], strict=True)
        ]

    def blind(self) -> Iterator[StageCall]:
        """Algorithm 1: P, F, then `iters` times C, F."""
        yield StageCall("predictor", 0, self._predict)
        yield StageCall("sftmd", 0, self._restore[0])
        for step in range(1, self.iters + 1):
            yield StageCall("corrector", step, self._correct[step - 1])
            yield StageCall("sftmd", step, self._restore[step])

    def predict(self) -> Iterator[StageCall]:
        """P alone, to `codes[0]`."""
        yield StageCall("predictor", 0, self._predict)

    def correct(self, corrections: int) -> Iterator[StageCall]:
        """F and C, so many times (at most `iters`), from `codes[0]` on; no image at the end."""
        for step in range(corrections):
            yield StageCall("sftmd", step, self._restore[step])
            yield StageCall("corrector", step + 1, self._correct[step])

    def known(self) -> Iterator[StageCall]:
        """F alone, under the code that was uploaded to `codes[0]`."""
        yield StageCall("sftmd", 0, self._restore[0])


def run(
    backend: Backend, calls: Iterator[StageCall], after_image: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Enqueue the calls in order and wait; returns milliseconds by stage.

    `after_image(step)` is called after each SR pass, for callers that want every image; it
    costs a wait each time.
    """
    marks = [(backend.mark(), "")]
    for stage_call in calls:
        stage_call.call.enqueue()
        marks.append((backend.mark(), stage_call.stage))
        if after_image is not None and stage_call.stage == "sftmd":
            after_image(stage_call.step)
            marks.append((backend.mark(), ""))
    backend.synchronize()
    times = dict.fromkeys(STAGES, 0.0)
    for (start, _), (end, stage) in pairwise(marks):
        if stage:
            times[stage] += backend.elapsed_ms(start, end)
    return times
