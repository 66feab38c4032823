"""A VapourSynth filter that upscales RGB24 clips with tracking of the blur.

    # in a .vpy script, with this folder on the path
    from vapoursynth_filter import upscaled
    clip = core.resize.Bicubic(clip, format=vs.RGB24, matrix_in_s="709")
    upscaled(clip).set_output()

VapourSynth requests frames in any order, sometimes twice. Tracking expects them in order, so a
frame that does not follow the last one starts a new stream. VapourSynth has the next frame only
after this one is done, so the upscaler processes one at a time, on GPUs too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ikc_deploy

Plane = NDArray[np.uint8]


class PlanarUpscaler:
    """An upscaler of frames in three planes, red, green and blue, each `[H,W]` uint8.

    Args:
        upscaler: An upscaler that processes one frame at a time: `load(streams=1)`.
    """

    def __init__(self, upscaler: ikc_deploy.Upscaler) -> None:
        self.upscaler = upscaler
        self._waiting: deque[Plane] = deque()
        self._stream = upscaler.stream(self._frames())
        self._last = -1

    def __call__(self, number: int, planes: Sequence[Plane]) -> list[Plane]:
        """Return the upscaled planes, each `[sH,sW]` uint8, of frame `number`."""
        if number != self._last + 1:
            self._stream = self.upscaler.stream(self._frames())
        self._last = number
        self._waiting.append(np.stack(planes, axis=-1))
        image = next(self._stream).image
        return [np.ascontiguousarray(image[:, :, index]) for index in range(3)]

    def _frames(self) -> Iterator[Plane]:
        while True:
            yield self._waiting.popleft()


def upscaled(clip: Any) -> Any:
    """Return an upscaled clip.

    Args:
        clip: A `vs.VideoNode` in RGB24.

    Raises:
        vs.Error: The clip has another format.
    """
    import vapoursynth as vs

    if clip.format.id != vs.RGB24:
        raise vs.Error("convert the clip to RGB24 first, naming its matrix")
    upscale = PlanarUpscaler(ikc_deploy.load(streams=1))
    scale = upscale.upscaler.scale
    blank = clip.std.BlankClip(width=scale * clip.width, height=scale * clip.height, keep=True)

    def fill(n: int, f: Sequence[Any]) -> Any:
        frame, source = f[1].copy(), f[0]
        frame.props.update(source.props)
        for index, plane in enumerate(upscale(n, [np.asarray(source[i]) for i in range(3)])):
            np.copyto(np.asarray(frame[index]), plane)
        return frame

    return blank.std.ModifyFrame([clip, blank], fill)
