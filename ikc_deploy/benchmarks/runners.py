"""What every candidate owes the bench: one call on the case's frames, and how long its parts took.

The clock runs from uint8 frames in the caller's memory to uint8 frames in the caller's memory,
copies and conversions included: what an application waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from numpy.typing import NDArray

STAGES: Final = ("predictor", "sftmd", "corrector")


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call; what `total` has beyond the stages is overhead."""

    total: float
    stages: dict[str, float]


class CandidateRunner(Protocol):
    """A candidate that is open for one case."""

    precision: str
    """Of its convolutions."""
    library: str
    """What computes them, as in `peak_throughput`: "onnxruntime", "torch", ..."""

    def run(self) -> Timing:
        """One call on the case's frames."""

    def image(self) -> NDArray[Any]:
        """What the last call returned, `[N,sH,sW,3]` uint8."""

    def macs(self) -> int | None:
        """Multiply-accumulates that one call executes; None where they cannot be counted."""

    def close(self) -> None:
        """Free everything."""


@dataclass
class StageClock:
    """Adds up how long each stage takes."""

    synchronize: Callable[[], None] = lambda: None
    """Waits for the device, so that a stage's time is its own."""
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def time(self, stage: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `call(*arguments)`, its time added to the stage."""
        started = time.perf_counter()
        result = call(*arguments)
        self.synchronize()
        self.stages[stage] += 1e3 * (time.perf_counter() - started)
        return result
