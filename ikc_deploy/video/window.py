"""A window as a sink; needs OpenCV."""

from __future__ import annotations

import threading
from typing import Any, Final

from ikc_deploy.errors import needs_extra
from ikc_deploy.video.interfaces import Frame

TITLE: Final = "ikc-upscale (q ends)"

_ENDING_KEYS: Final = (ord("q"), 27)


class WindowSink:
    """A sink that shows every frame in a window; the keys q and Escape set `stop`.

    Args:
        stop: Event that is set when the viewer ends the display.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """

    done = 0
    warnings = ()

    def __init__(self, stop: threading.Event) -> None:
        with needs_extra("window", "a window"):
            import cv2
        self._cv2: Any = cv2
        self._stop = stop

    def write(self, frame: Frame) -> None:
        """Show the next frame, and check the keyboard."""
        # OpenCV expects BGR.
        self._cv2.imshow(TITLE, frame.rgb[:, :, ::-1])
        if self._cv2.waitKey(1) & 0xFF in _ENDING_KEYS:
            self._stop.set()

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - nothing is kept
        """Close the window."""
        self._cv2.destroyAllWindows()
        return ()

    def abort(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()
