"""Upscale a camera or clip that OpenCV reads; late frames are dropped in favour of the newest.

python examples/opencv_loop.py 0                 # the first camera, in a window; Esc ends it
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import ikc_deploy


def frames(capture: Any) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a `cv2.VideoCapture` in RGB; OpenCV returns BGR."""
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield np.ascontiguousarray(frame[:, :, ::-1])


def upscale_capture(
    upscaler: ikc_deploy.Upscaler,
    capture: Any,
    show: Callable[[NDArray[np.uint8]], bool],
    live: bool = True,
) -> ikc_deploy.Status:
    """Upscale the frames of a capture and show them.

    Args:
        upscaler: The upscaler to use.
        capture: A `cv2.VideoCapture`.
        show: Called with each upscaled frame in BGR `[sH,sW,3]`; returns False to stop.
        live: Whether to drop late frames.

    Returns:
        The status of the stream.
    """
    with upscaler.stream(frames(capture), live=live) as stream:
        for result in stream:
            if not show(np.ascontiguousarray(result.image[:, :, ::-1])):
                break
        return stream.status


def show_in_window(frame: NDArray[np.uint8]) -> bool:
    """Show a frame; return False if Esc was pressed."""
    cv2.imshow("ikc-deploy", frame)
    return cv2.waitKey(1) != 27


if __name__ == "__main__":
    address = sys.argv[1]
    device = cv2.VideoCapture(int(address) if address.isdecimal() else address)
    with ikc_deploy.load() as loaded:
        print(upscale_capture(loaded, device, show_in_window))
