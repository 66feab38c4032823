"""What travels through the pipeline: frames, what is known of their stream, and who upscales them.

A run is one `Source`, one `FrameUpscaler` and one `Sink`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.colour import Colour

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream."""

    rgb: NDArray[np.uint8]
    """`[H,W,3]`, as coded: a rotation of the stream is not applied."""
    pts: int
    """When it is shown, in the stream's time base; every frame's is larger than the one before."""


@dataclass(frozen=True)
class StreamFacts:
    """What is the same for every frame of a stream."""

    width: int
    height: int
    time_base: Fraction
    """Seconds of one tick of `Frame.pts`."""
    rate: Fraction
    """Frames a second on average; a hint for encoders, never a clock."""
    colour: Colour
    """How the pictures were coded, and how the output is."""
    bits: int = 8
    """Bits of a coded sample."""
    subsampling: str = "420"
    """Of the chroma: "420", "422" or "444"."""
    aspect: Fraction = Fraction(1)
    """Width over height of a pixel."""
    display_matrix: tuple[int, ...] | None = None
    """Rotation and flips for players: nine 16.16 and 2.30 fixed-point numbers."""
    frames: int | None = None
    """How many to expect; None if nobody knows."""

    def scaled(self, scale: int) -> StreamFacts:
        """The facts of the upscaled stream."""
        matrix = self.display_matrix
        if matrix is not None:
            # The last row moves the turned picture back into view, in pixels.
            matrix = (*matrix[:6], scale * matrix[6], scale * matrix[7], matrix[8])
        width, height = scale * self.width, scale * self.height
        return replace(self, width=width, height=height, display_matrix=matrix)

    def tag(self, context: VideoCodecContext) -> None:
        """Write what is known of colour and pixel shape into a codec's context."""
        context.sample_aspect_ratio = self.aspect
        context.colorspace = self.colour.matrix
        context.color_range = 2 if self.colour.full_range else 1
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer


class Source(Protocol):
    """Where frames come from."""

    @property
    def facts(self) -> StreamFacts:
        """Known before the first frame is asked for."""

    @property
    def warnings(self) -> Sequence[str]:
        """What was wrong with the source; complete when the frames have run out."""

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """The frames in order of time, without the first `skip`."""


class Sink(Protocol):
    """Where upscaled frames go."""

    @property
    def done(self) -> int:
        """How many frames it had already when it was opened."""

    @property
    def warnings(self) -> Sequence[str]:
        """What of the source will be missing in the output."""

    def write(self, frame: Frame) -> None:
        """Take the next frame."""

    def finish(self, complete: bool) -> Sequence[str]:
        """Make the output whole; `complete` is False if frames are missing at the end.

        Returns what was lost at that, a sentence for each.
        """

    def abort(self) -> None:
        """Keep what a later run can resume, and delete the rest."""


class FrameUpscaler(Protocol):
    """Upscales the frames of one stream.

    It is called from one thread, with the frames in order of time and each of them once, so it may
    carry what it learnt from one to the next.
    """

    @property
    def scale(self) -> int:
        """SR side over LR side."""

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`[H,W,3]` uint8 RGB to `[sH,sW,3]`; the result is the caller's own."""


@dataclass(frozen=True)
class UpscalerAdapter:
    """Every frame with one upscaler, which is this stream's alone if it tracks the blur."""

    upscaler: Upscaler
    sigma: float | None = None
    """The blur of all frames in HR pixels; None to estimate it."""
    estimate: Estimate | None = None
    """How it is estimated; None for the upscaler's own way."""

    @property
    def scale(self) -> int:
        """SR side over LR side."""
        return self.upscaler.scale

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raises what `Upscaler` raises."""
        return self.upscaler(frame, sigma=self.sigma, estimate=self.estimate).image
