"""`ClipUpscaler`: upscales the frames of a stream with an `Upscaler`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.pipeline import CAPACITY, PipelineRun, RunSettings
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.interfaces import Frame, Source, StreamFacts


@dataclass(frozen=True)
class ClipUpscaler:
    """A `FrameUpscaler` that runs an `Upscaler`, followed by `Postprocessing`.

    One thread decodes, the worker threads of the upscaler upscale and postprocess, and the caller
    encodes. At most `CAPACITY` frames are queued before the workers, and as many after them.
    """

    upscaler: Upscaler
    """The upscaler; the caller closes it."""
    blur: BlurSettings = field(default_factory=BlurSettings)
    """Blur of all frames."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Strength, output size and preview."""

    def output_facts(self, source: Source) -> StreamFacts:
        """Return the properties of the output frames; see `FrameUpscaler.output_facts`."""
        return output_facts(source.facts, self.postprocessing, self.upscaler.scale, source.name)

    def description(self) -> dict[str, Any]:
        """Return everything that the pixels depend on, as JSON values."""
        upscaler, blur = self.upscaler, self.blur
        return {
            "weights": upscaler.bundle.manifest.weights_sha256,
            "iters": upscaler.iters,
            "early_stop": upscaler.early_stop,
            "self_ensemble": upscaler.self_ensemble,
            "sigma": _numbers(blur.sigma),
            "kernel": _numbers(blur.kernel),
            "code": _numbers(blur.code),
            "estimate": blur.estimate,
            "strength": self.postprocessing.strength,
            "preview": self.postprocessing.preview,
        }

    def run(
        self, source: Source, skip: int, live: bool, stop: threading.Event
    ) -> PipelineRun[Frame]:
        """Return the run of a source's frames; see `FrameUpscaler.run`.

        Iterating raises the errors of the upscaler.
        """
        facts = source.facts
        size = _coded_size(facts, self.postprocessing, self.upscaler.scale)

        def finish(frame: Frame, result: Result) -> Frame:
            return Frame(self.postprocessing(frame.rgb, result.image, size), frame.pts)

        return self.upscaler.dispatcher.run(
            source.frames(skip),
            attrgetter("rgb"),
            finish,
            self.blur,
            RunSettings("newest" if live else "ahead", CAPACITY, stop),
            (facts.height, facts.width),
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


def _numbers(value: ArrayLike | None) -> Any:
    return None if value is None else np.asarray(value, np.float64).tolist()
