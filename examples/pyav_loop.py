"""Upscale a clip with PyAV, frame by frame, with tracking of the blur.

    python examples/pyav_loop.py in.mp4 out.mp4

A minimal correct loop; `ikc-upscale` also keeps audio, colour tags and rotation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

import ikc_deploy


def upscale_clip(upscaler: ikc_deploy.Upscaler, source: str, target: str) -> ikc_deploy.Status:
    """Upscale the frames of `source` into `target`; return the status of the stream."""
    with av.open(source) as clip, av.open(target, "w") as out:
        video = clip.streams.video[0]
        coded = out.add_stream("libx264", video.average_rate or Fraction(25))
        coded.width, coded.height = upscaler.scale * video.width, upscaler.scale * video.height
        coded.pix_fmt = "yuv420p"
        coded.codec_context.time_base = video.time_base
        times: list[Any] = []

        def frames() -> Iterator[NDArray[np.uint8]]:
            for frame in clip.decode(video):
                times.append(frame.pts)
                yield frame.to_ndarray(format="rgb24")

        with upscaler.stream(frames()) as stream:
            for result in stream:
                picture = av.VideoFrame.from_ndarray(result.image, format="rgb24")
                # Keep the time stamps: the frame rate of a clip need not be constant.
                picture.pts, picture.time_base = times.pop(0), video.time_base
                out.mux(coded.encode(picture))
        out.mux(coded.encode())
        return stream.status


if __name__ == "__main__":
    with ikc_deploy.load() as loaded:
        print(upscale_clip(loaded, *sys.argv[1:3]))
