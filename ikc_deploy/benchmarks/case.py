"""The case and the subject of a benchmark, as plain values that can be sent to other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.synthetic_frames import natural_frame
from ikc_deploy.errors import InputError
from ikc_deploy.loops import IKC
from ikc_deploy.runtime.frames import MIN_SIDE


@dataclass(frozen=True)
class BenchmarkCase:
    """The frames of one call and their number of corrections.

    Raises:
        InputError: A value is out of range.
    """

    height: int
    """Height of the LR frame in pixels."""
    width: int
    """Width of the LR frame in pixels."""
    iters: int = IKC.iters
    """Number of corrections after the predictor."""
    batch: int = 1
    """Number of frames in a call."""
    threads: int = 0
    """Number of CPU cores to use; 0 for all."""

    def __post_init__(self) -> None:
        """Require sides that the networks accept, and numbers in range."""
        if min(self.height, self.width) < MIN_SIDE:
            raise InputError(
                f"an LR frame of {self.width}x{self.height} is too small; "
                f"both sides need at least {MIN_SIDE} pixels"
            )
        for name, least in (("iters", 0), ("batch", 1), ("threads", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")

    @property
    def pixels(self) -> int:
        """Number of LR pixels of all frames of a call."""
        return self.batch * self.height * self.width

    def frames(self) -> NDArray[np.uint8]:
        """Return the frames of a call, `[batch,height,width,3]` uint8."""
        seeds = range(self.batch)
        return np.stack([natural_frame(self.height, self.width, seed) for seed in seeds])

    def __str__(self) -> str:
        """Return the case in words, such as `4 of 160x90, iters 7`; a batch of 1 is left out."""
        batch = f"{self.batch} of " if self.batch > 1 else ""
        return f"{batch}{self.width}x{self.height}, iters {self.iters}"


@dataclass(frozen=True)
class Subject:
    """The networks under test: weights by spec, or the folder of a bundle.

    Raises:
        InputError: Both are given, or neither.
    """

    weights: str | None = None
    """Spec of the weights as in `ikc-bench --weights`; None if a bundle is given."""
    bundle: str | None = None
    """Folder of a bundle; None if weights are given."""

    def __post_init__(self) -> None:
        """Require exactly one of `weights` and `bundle`."""
        if (self.weights is None) == (self.bundle is None):
            raise InputError("give --weights or --bundle, not both")

    def __str__(self) -> str:
        """Return the name of the weights or the path of the bundle."""
        return str(self.weights or self.bundle)


def planes_of(frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Convert frames `[N,H,W,3]` uint8 to float32 planes `[N,3,H,W]` in [0,1]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32) / 255
