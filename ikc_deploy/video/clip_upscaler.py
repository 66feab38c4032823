"""`ClipUpscaler`: upscales the frames of a stream with the pipeline of an `Upscaler`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from operator import attrgetter

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.runtime.options import CLIP_ESTIMATE
from ikc_deploy.runtime.pipeline import CAPACITY, PipelineRun
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.upscaler import ClipSettings, Upscaler, run_clip
from ikc_deploy.video.interfaces import Frame, Source, StreamFacts


@dataclass(frozen=True)
class ClipUpscaler:
    """A `FrameUpscaler` that runs an `Upscaler`, followed by `Postprocessing`.

    One thread decodes, the worker threads of the upscaler upscale and postprocess, and the caller
    encodes. At most `CAPACITY` frames are queued before the workers, and as many after them.
    """

    upscaler: Upscaler
    """The upscaler; the caller closes it."""
    sigma: float | None = None
    """Blur of all frames in HR pixels; None to estimate it."""
    estimate: Estimate = CLIP_ESTIMATE
    """Way to estimate it."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Postprocessing of the images."""

    @property
    def scale(self) -> int:
        """Scale factor of the network."""
        return self.upscaler.scale

    def run(
        self, source: Source, skip: int, live: bool, stop: threading.Event
    ) -> PipelineRun[Frame]:
        """Return the run of a source's frames; see `FrameUpscaler.run`.

        Iterating raises the errors of the upscaler.
        """
        facts = source.facts
        size = _coded_size(facts, self.postprocessing, self.scale)

        def finish(frame: Frame, result: Result) -> Frame:
            return Frame(self.postprocessing(frame.rgb, result.image, size), frame.pts)

        return run_clip(
            self.upscaler,
            source.frames(skip),
            attrgetter("rgb"),
            finish,
            ClipSettings(self.sigma, self.estimate, (facts.height, facts.width)),
            "newest" if live else "ahead",
            CAPACITY,
            stop,
        )


def output_facts(
    facts: StreamFacts, postprocessing: Postprocessing, scale: int, name: str
) -> StreamFacts:
    """Return the facts of the upscaled and postprocessed stream.

    Args:
        facts: Properties of the input.
        postprocessing: Strength, output size and preview.
        scale: Scale factor of the network.
        name: Name of the input for messages.

    Raises:
        InputError: The output size is invalid, or the input is too small.
    """
    if min(facts.width, facts.height) < MIN_SIDE:
        raise InputError(
            f"'{name}' has frames of {facts.width}x{facts.height} pixels; at least {MIN_SIDE} on "
            "each side are needed"
        )
    if not postprocessing.resizes:
        return facts.scaled(scale)
    return facts.resized(*_coded_size(facts, postprocessing, scale))


def _coded_size(facts: StreamFacts, postprocessing: Postprocessing, scale: int) -> tuple[int, int]:
    """Return height and width of output frames as coded.

    Sizes in `postprocessing` are as displayed: for a clip that players rotate by 90 degrees, the
    sides are swapped. They are rounded to even numbers, as required by chroma subsampling.

    Raises:
        InputError: The size is impossible.
    """
    matrix = facts.display_matrix
    turned = matrix is not None and abs(matrix[1]) > abs(matrix[0])
    sides = (facts.width, facts.height) if turned else (facts.height, facts.width)
    found = postprocessing.output_size(*sides, scale, even=True)
    return (found[1], found[0]) if turned else found
