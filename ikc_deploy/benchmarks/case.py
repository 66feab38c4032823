"""`Case`: one line of a bench. Plain values, so that it travels to a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

from numpy.typing import NDArray

from ikc_deploy.benchmarks.images import natural_input
from ikc_deploy.bundle import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.frames import SMALLEST_SIDE
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS, Upscaler, load_bundle


@dataclass(frozen=True)
class Case:
    """The size of a frame and how to upscale it."""

    height: int
    """Of the LR frame, in pixels."""
    width: int
    iters: int = DEFAULT_ITERS
    backend: str = "auto"
    threads: int = 0
    """CPU cores to use; 0 for all."""
    runs: int | None = None
    """Timed calls; None for as many as fit in a minute."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < SMALLEST_SIDE:
            raise InputError(
                f"an LR frame of {self.width}x{self.height} is too small; "
                f"both sides need at least {SMALLEST_SIDE} pixels"
            )
        for name, least in (("iters", 0), ("threads", 0), ("runs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")

    def open(self, bundle: str | PathLike[str] | Bundle) -> Upscaler:
        """The upscaler under test."""
        return load_bundle(bundle, self.backend, self.iters, self.threads)

    def frame(self, upscaler: Upscaler) -> NDArray[Any]:
        """The frame to run, in the layout that the bundle takes."""
        return natural_input(self.height, self.width, upscaler.bundle.manifest.io)
