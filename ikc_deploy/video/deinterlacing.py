"""Deinterlacing of decoded frames: libavfilter's bwdif, one frame out for each frame in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av
from av.filter import Graph

from ikc_deploy.errors import VideoError
from ikc_deploy.video.names import Deinterlace

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

DONE = "the clip is interlaced: its frames are deinterlaced (bwdif)"
"""Message for a clip with frames that were deinterlaced."""


class Deinterlacer:
    """Deinterlaces the frames of one stream; frame rate and time stamps are kept.

    Args:
        mode: "auto" for the frames that are marked as interlaced; the frames before the first such
            frame are not delayed. "on" for all, "off" for none.
    """

    def __init__(self, mode: Deinterlace) -> None:
        self.used = False
        """Whether a frame was deinterlaced."""
        self._mode = mode
        self._bwdif: _Bwdif | None = None

    def __call__(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the frames, each in the format of its source if bwdif supports it.

        Raises:
            VideoError: The frames are too small for bwdif.
        """
        for frame in frames:
            yield from self._next(frame)
        if self._bwdif is not None:
            yield from self._bwdif.flush()

    def _next(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        marked = frame.interlaced_frame and self._mode == "auto"
        self.used = self.used or marked or self._mode == "on"
        if not self.used:
            yield frame
            return
        if self._bwdif is not None and not self._bwdif.fits(frame):
            yield from self._bwdif.flush()
            self._bwdif = None
        if self._bwdif is None:
            self._bwdif = _Bwdif(frame, everything=self._mode == "on")
        yield from self._bwdif.push(frame)


class _Bwdif:
    """One graph, for frames of the size and format of `first`."""

    def __init__(self, first: VideoFrame, everything: bool) -> None:
        self._kind = first.width, first.height, first.format.name
        # The filter counts in other units, and not all streams have time stamps.
        self._waiting: deque[tuple[int | None, Any]] = deque()
        self._graph = Graph()
        chosen = "all" if everything else "interlaced"
        nodes: list[Any] = [
            self._graph.add_buffer(
                width=first.width,
                height=first.height,
                format=first.format,
                time_base=first.time_base,
            ),
            self._graph.add("bwdif", f"mode=send_frame:parity=auto:deint={chosen}"),
            self._graph.add("buffersink"),
        ]
        try:
            self._graph.link_nodes(*nodes).configure()
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                f"frames of {first.width}x{first.height} cannot be deinterlaced; "
                "give --deinterlace off"
            ) from error

    def fits(self, frame: VideoFrame) -> bool:
        return self._kind == (frame.width, frame.height, frame.format.name)

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        self._waiting.append((frame.pts, frame.time_base))
        self._graph.vpush(frame)
        yield from self._pull()

    def flush(self) -> Iterator[VideoFrame]:
        self._graph.vpush(None)
        yield from self._pull()

    def _pull(self) -> Iterator[VideoFrame]:
        while self._waiting:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            frame.pts, frame.time_base = self._waiting.popleft()
            yield frame
