"""Interfaces of the video pipeline: frames, facts about their stream, source, upscaler and sink.

A run is one `Source`, one `FrameUpscaler` and one `Sink`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.pipeline import PipelineRun
from ikc_deploy.video.colour import Colour
from ikc_deploy.video.hdr import StaticHdr

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame of a stream."""

    rgb: NDArray[np.uint8]
    """RGB image `[H,W,3]`, as coded: a rotation of the stream is not applied."""
    pts: int
    """Presentation time stamp in the stream's time base; it increases from frame to frame."""


@dataclass(frozen=True)
class StreamFacts:
    """The properties that all frames of a stream have in common."""

    width: int
    """Width in pixels, as coded."""
    height: int
    """Height in pixels, as coded."""
    time_base: Fraction
    """Duration of one tick of `Frame.pts` in seconds."""
    rate: Fraction
    """Average frames per second; a hint for encoders, never used as a clock."""
    colour: Colour
    """Colour coding of the input frames, and of the output."""
    bits: int = 8
    """Bits per coded sample."""
    subsampling: str = "420"
    """Chroma subsampling: "420", "422" or "444"."""
    aspect: Fraction = Fraction(1)
    """Width over height of a pixel."""
    display_matrix: tuple[int, ...] | None = None
    """Rotation and flips for players: nine 16.16 and 2.30 fixed-point numbers; None for none."""
    hdr: StaticHdr | None = None
    """Static HDR metadata; None for none."""
    frames: int | None = None
    """Expected number of frames; None if it is not known."""

    def scaled(self, scale: int) -> StreamFacts:
        """Return the facts of the stream after upscaling by `scale`."""
        matrix = self.display_matrix
        if matrix is not None:
            # The last row moves the rotated frame back into view, in pixels.
            matrix = (*matrix[:6], scale * matrix[6], scale * matrix[7], matrix[8])
        width, height = scale * self.width, scale * self.height
        return replace(self, width=width, height=height, display_matrix=matrix)

    def resized(self, height: int, width: int) -> StreamFacts:
        """Return the facts of the stream with frames of another size."""
        matrix = self.display_matrix
        if matrix is not None:
            across, down = Fraction(width, self.width), Fraction(height, self.height)
            # Moves are in pixels as displayed: along the coded axis that the matrix maps to each.
            turned = abs(matrix[1]) > abs(matrix[0])
            x, y = (down, across) if turned else (across, down)
            matrix = (*matrix[:6], round(x * matrix[6]), round(y * matrix[7]), matrix[8])
        return replace(self, width=width, height=height, display_matrix=matrix)

    def tag(self, context: VideoCodecContext) -> None:
        """Set colour and pixel aspect ratio in a codec context."""
        context.sample_aspect_ratio = self.aspect
        context.colorspace = self.colour.matrix
        context.color_range = 2 if self.colour.full_range else 1
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer


class Source(Protocol):
    """A source of the frames of one stream."""

    @property
    def name(self) -> str:
        """Name of the source for messages."""

    @property
    def facts(self) -> StreamFacts:
        """Properties of the stream; available before the first frame is requested."""

    @property
    def warnings(self) -> Sequence[str]:
        """Problems of the source, a sentence for each; complete after the last frame."""

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield the frames in order of time, without the first `skip`."""


class Sink(Protocol):
    """A destination of upscaled frames."""

    @property
    def done(self) -> int:
        """Number of frames that the output already had when the sink was opened."""

    @property
    def warnings(self) -> Sequence[str]:
        """Parts of the source that the output will lack, a sentence for each."""

    def write(self, frame: Frame) -> None:
        """Write the next frame."""

    def finish(self, complete: bool) -> Sequence[str]:
        """Finish the output.

        Args:
            complete: Whether the last frame of the source was written.

        Returns:
            What the output lacks beyond `warnings`, a sentence for each.
        """

    def abort(self) -> None:
        """Keep what a later run can resume, and delete the rest."""


class FrameUpscaler(Protocol):
    """An upscaler of the frames of one stream."""

    def output_facts(self, source: Source) -> StreamFacts:
        """Return the properties of the output frames for a source.

        Raises:
            InputError: The frames of the source cannot be upscaled to the requested size.
        """

    def run(
        self, source: Source, skip: int, live: bool, stop: threading.Event
    ) -> AbstractContextManager[PipelineRun[Frame]]:
        """Return the run of a source's frames through this upscaler.

        Several frames may be in progress, but outputs come in order. The end of the `with` block
        ends the run, and waits until no frame is in progress.

        Args:
            source: The source.
            skip: Number of frames to leave out at its beginning.
            live: Whether to drop frames that arrive faster than they are upscaled, keeping the
                newest.
            stop: Event that ends the run after the frames that were begun.

        Returns:
            An iterator over output frames with the time stamps of the input.
        """
