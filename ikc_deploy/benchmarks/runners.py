"""The interface of a candidate: one call on the case's frames, and the times of its parts.

The time is from uint8 frames in the caller's memory to uint8 frames in the caller's memory, copies
and conversions included: the time that an application waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True)
class Timing:
    """The milliseconds of one call; `total` minus the stages is overhead."""

    total: float
    """Milliseconds of the whole call."""
    stages: dict[str, float]
    """Milliseconds by network, summed over the loop."""


class CandidateRunner(Protocol):
    """A candidate that is open for one case."""

    precision: str
    """Precision of the convolutions."""
    library: str
    """Library that computes them, as in `peak_throughput`: "onnxruntime", "torch", ..."""

    def run(self) -> Timing:
        """Run one call on the case's frames and return its times."""

    def image(self) -> NDArray[Any]:
        """Return the result of the last call, `[N,sH,sW,3]` uint8."""

    def macs(self) -> int | None:
        """Return the multiply-accumulates of one call; None where they cannot be counted."""

    def close(self) -> None:
        """Free everything."""


class LastImage:
    """The part of a runner that keeps the result of its last call."""

    _image: NDArray[Any] | None = None

    def image(self) -> NDArray[Any]:
        """Return the result of the last call, `[N,sH,sW,3]` uint8.

        Raises:
            ValueError: There was no call yet.
        """
        if self._image is None:
            raise ValueError("no image before the first call; call run() first")
        return self._image


@dataclass
class StageClock:
    """A clock that adds up the time of each stage."""

    synchronize: Callable[[], None] = lambda: None
    """Function that waits for the device, so that a stage's time does not include another's."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage."""

    def time(self, stage: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return `call(*arguments)` and add its time to the stage."""
        started = time.perf_counter()
        result = call(*arguments)
        self.synchronize()
        elapsed = 1e3 * (time.perf_counter() - started)
        self.stages[stage] = self.stages.get(stage, 0.0) + elapsed
        return result
