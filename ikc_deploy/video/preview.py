"""A preview of upscaling: the left half of every frame is upscaled bicubically instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from ikc_deploy.video.interfaces import FrameUpscaler

_LINE: Final = 2
_ENLARGING: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


@dataclass(frozen=True)
class SplitView:
    """A `FrameUpscaler` whose left half is bicubic, divided by a white line."""

    upscaler: FrameUpscaler
    """Upscaler of the right half."""

    @property
    def scale(self) -> int:
        """Scale factor: SR side over LR side."""
        return self.upscaler.scale

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale one frame; raise what the upscaler raises."""
        image = self.upscaler(frame)
        height, width = image.shape[:2]
        small = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        large = small.reformat(width=width, height=height, interpolation=_ENLARGING)
        middle = width // 2
        image[:, :middle] = large.to_ndarray()[:, :middle]
        image[:, middle - _LINE : middle] = 255
        return image
