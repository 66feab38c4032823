r"""Upscale frames between two GStreamer pipelines. A sketch: no errors are handled.

    python examples/gstreamer_elements.py "videotestsrc num-buffers=50 ! video/x-raw,width=160" \
        "videoconvert ! autovideosink"

Needs PyGObject and GStreamer with its base plugins (Debian: python3-gi,
gir1.2-gst-plugins-base-1.0 and gstreamer1.0-plugins-base; run with Debian 12's GStreamer 1.22).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import gi
import numpy as np
from numpy.typing import NDArray

import ikc_deploy

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401 - GstApp adds methods to the elements

RGB = "video/x-raw,format=RGB"


def stride_of(width: int) -> int:
    """Return the bytes of a row of raw RGB, which GStreamer pads to a multiple of four."""
    return 4 * ((3 * width + 3) // 4)


def rgb_of(buffer: Any, width: int, height: int) -> NDArray[np.uint8]:
    """Copy a raw RGB buffer to `[H,W,3]`."""
    stride = stride_of(width)
    there, mapped = buffer.map(Gst.MapFlags.READ)
    assert there
    try:
        rows = np.frombuffer(mapped.data, np.uint8, stride * height).reshape(height, stride)
        return rows[:, : 3 * width].reshape(height, width, 3).copy()
    finally:
        buffer.unmap(mapped)


def buffer_of(image: NDArray[np.uint8]) -> Any:
    """Copy `[H,W,3]` to a raw RGB buffer."""
    height, width = image.shape[:2]
    rows = np.zeros((height, stride_of(width)), np.uint8)
    rows[:, : 3 * width] = image.reshape(height, 3 * width)
    return Gst.Buffer.new_wrapped(rows.tobytes())


def pulled(sink: Any, buffers: list[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of an appsink; append each buffer to `buffers`, for its time stamps."""
    while (sample := sink.pull_sample()) is not None:
        caps = sample.get_caps().get_structure(0)
        buffers.append(sample.get_buffer())
        yield rgb_of(buffers[-1], caps.get_value("width"), caps.get_value("height"))


def upscale_pipelines(upscaler: ikc_deploy.Upscaler, source: str, target: str) -> int:
    """Run until the first pipeline ends; return the number of frames."""
    Gst.init(None)
    first = Gst.parse_launch(f"{source} ! videoconvert ! {RGB} ! appsink name=sink sync=false")
    second = Gst.parse_launch(f"appsrc name=source format=time ! {target}")
    sink, feed = first.get_by_name("sink"), second.get_by_name("source")
    buffers: list[Any] = []
    for pipeline in (first, second):
        pipeline.set_state(Gst.State.PLAYING)
    done = 0
    for result in upscaler.stream(pulled(sink, buffers)):
        height, width = result.image.shape[:2]
        if not done:
            feed.set_caps(
                Gst.Caps.from_string(f"{RGB},width={width},height={height},framerate=0/1")
            )
        buffer = buffer_of(result.image)
        taken = buffers.pop(0)
        buffer.pts, buffer.duration = taken.pts, taken.duration
        feed.push_buffer(buffer)
        done += 1
    feed.end_of_stream()
    second.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS)
    for pipeline in (first, second):
        pipeline.set_state(Gst.State.NULL)
    return done


if __name__ == "__main__":
    with ikc_deploy.load() as loaded:
        print(upscale_pipelines(loaded, *sys.argv[1:3]), "frames")
