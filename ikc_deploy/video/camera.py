"""Live sources: V4L2 devices, RTSP and other addresses that FFmpeg opens, with reconnection.

An address may contain a user, a password or a token. Messages and exceptions show only its scheme,
host and path; FFmpeg's own texts are not included, because they quote the whole address.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av

from ikc_deploy.errors import CameraError, IkcError, VideoError
from ikc_deploy.video.colour import ToRgb
from ikc_deploy.video.decoder import Decoder
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.names import Deinterlace
from ikc_deploy.video.source_facts import check_size, stream_facts, video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

TIME_BASE: Final = Fraction(1, 90000)
"""Time base of the time stamps that frames get when they arrive; the clock of RTP."""


@dataclass(frozen=True)
class CameraSettings:
    """The address of a camera, and the waiting times of its connection.

    Raises:
        VideoError: A duration is not positive, or the first wait is above the longest.
    """

    address: str = field(repr=False)
    """Number of a V4L2 device, a URL that FFmpeg opens, or "lavfi:" followed by an FFmpeg test
    pattern. Not part of `repr`."""
    seconds: float | None = None
    """Seconds for which frames are read; None for no limit."""
    first_wait: float = 0.5
    """Seconds before the first attempt to reconnect; doubled after each failed attempt."""
    longest_wait: float = 30.0
    """Maximum number of seconds between attempts to reconnect."""
    silence: float = 5.0
    """Seconds without a frame after which a connection counts as lost."""
    deinterlace: Deinterlace = "auto"
    """Which frames are deinterlaced."""

    def __post_init__(self) -> None:
        """Require positive durations, the first wait not above the longest."""
        if not 0 < self.first_wait <= self.longest_wait or self.silence <= 0:
            raise VideoError("waits must be above 0 seconds, the first not above the longest")

    @property
    def name(self) -> str:
        """Address without user, password and query, for messages."""
        return redacted(self.address)


class Camera:
    """A live source, whose frames are stamped with their time of arrival.

    It connects when created. Lost connections are re-established until `stop` is set.

    Args:
        settings: Address and waiting times.
        stop: Event that ends the frames.
        notify: Called with a message for each lost, failed and re-established connection.

    Raises:
        CameraError: The camera does not answer or sends no frame.
        NoVideoError: The camera has no video stream.
    """

    def __init__(
        self,
        settings: CameraSettings,
        stop: threading.Event,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = settings.name
        self.warnings: list[str] = []
        self.reconnects = 0
        self._settings = settings
        self._stop = stop
        self._notify = notify
        self._deadline = math.inf
        self._connection: _Connection | None = _Connection(settings)
        self.facts = replace(self._connection.facts, time_base=TIME_BASE, frames=None)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:  # noqa: ARG002 - live
        """Yield frames until the time is over or `stop` is set; `skip` is ignored.

        Raises:
            VideoError: The camera has another frame size after reconnection.
        """
        to_rgb, last, started = ToRgb(self.facts.colour), -1, math.nan
        if self._settings.seconds is not None:
            self._deadline = time.monotonic() + self._settings.seconds
        try:
            for frame in self._decoded():
                now = time.monotonic()
                if self._over():
                    return
                check_size(frame, self.facts, self.name)
                started = now if last < 0 else started
                last = max(last + 1, round((now - started) / TIME_BASE))
                yield Frame(to_rgb(frame), last)
        finally:
            self.close()

    def _over(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._deadline

    def _decoded(self) -> Iterator[VideoFrame]:
        while not self._over():
            if self._connection is None:
                self._reconnect()
                continue
            yield from self._connection.frames()
            self.close()
            if not self._over():
                self._notify(f"{self.name}: connection lost")

    def _reconnect(self) -> None:
        wait = self._settings.first_wait
        while self._connection is None and not self._over():
            self._stop.wait(min(wait, self._deadline - time.monotonic()))
            if self._over():
                return
            try:
                self._connection = _Connection(self._settings)
            except IkcError as error:
                wait = min(2 * wait, self._settings.longest_wait)
                self._notify(f"{error}; next attempt in {wait:g} s")
            else:
                self.reconnects += 1
                self._notify(f"{self.name}: connected again")


def redacted(address: str) -> str:
    """Return a camera's address without user, password and query."""
    scheme, separator, rest = _target(address)[0].partition("://")
    if not separator:
        return scheme
    # After the last @, because a password may contain any character, even unescaped.
    return scheme + separator + re.split("[?#]", rest.rpartition("@")[2])[0]


def _target(address: str) -> tuple[str, str | None, dict[str, str]]:
    """Return what FFmpeg opens: address, container format and options."""
    if address.isdecimal():
        return f"/dev/video{address}", "v4l2", {}
    if address.startswith("lavfi:"):
        return address.removeprefix("lavfi:"), "lavfi", {}
    # UDP loses packets, and with them frames; only RTSP has this option.
    return address, None, {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}


class _Connection:
    def __init__(self, settings: CameraSettings) -> None:
        name = settings.name
        address, container, options = _target(settings.address)
        try:
            self._container: InputContainer = av.open(
                address,
                "r",
                format=container,
                options=options,
                metadata_errors="replace",
                timeout=(2 * settings.silence, settings.silence),
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            # Without its cause, whose text quotes the address.
            raise CameraError(f"the camera {name} does not answer: {reason}") from None
        try:
            stream = video_stream(self._container, name)
            self._frames = Decoder(
                self._container, stream, settings.deinterlace, live=True
            ).frames()
            self._first = _next(self._frames)
        except BaseException:
            self._container.close()
            raise
        if self._first is None:
            self._container.close()
            raise CameraError(f"the camera {name} answers, but sends no frame")
        self.facts = stream_facts(stream, self._first)

    def frames(self) -> Iterator[VideoFrame]:
        frame = self._first
        while frame is not None:
            yield frame
            frame = _next(self._frames)

    def close(self) -> None:
        self._container.close()


def _next(frames: Iterator[VideoFrame]) -> VideoFrame | None:
    try:
        return next(frames, None)
    except (av.FFmpegError, OSError):
        return None
