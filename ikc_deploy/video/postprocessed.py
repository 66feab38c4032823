"""A `FrameUpscaler` with postprocessing: strength, output size and preview."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.video.interfaces import FrameUpscaler, StreamFacts


@dataclass(frozen=True)
class PostprocessedFrames:
    """An upscaler of frames, followed by `Postprocessing`."""

    upscaler: FrameUpscaler
    """The upscaler."""
    postprocessing: Postprocessing
    """What happens to its output."""
    size: tuple[int, int]
    """Height and width of the output, as coded."""

    @property
    def scale(self) -> int:
        """Scale factor of the network."""
        return self.upscaler.scale

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale one frame; raise what the upscaler raises."""
        return self.postprocessing(frame, self.upscaler(frame), self.size)


def output_facts(
    facts: StreamFacts, postprocessing: Postprocessing, scale: int, name: str
) -> StreamFacts:
    """Return the facts of the upscaled and postprocessed stream, for the input's facts.

    Args:
        facts: Properties of the input.
        postprocessing: Strength, output size and preview.
        scale: Scale factor of the network.
        name: Name of the input for messages.

    Raises:
        InputError: The size is impossible, or the input has too few pixels.
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
    """Return height and width of output frames as coded, for the input's facts.

    Sizes are those that a viewer sees: for a clip that players turn by 90 degrees, the sides are
    exchanged. Given sizes are rounded to even numbers, which chroma subsampling needs.

    Raises:
        InputError: The size is impossible.
    """
    matrix = facts.display_matrix
    turned = matrix is not None and abs(matrix[1]) > abs(matrix[0])
    sides = (facts.width, facts.height) if turned else (facts.height, facts.width)
    found = postprocessing.output_size(*sides, scale, even=True)
    return (found[1], found[0]) if turned else found
