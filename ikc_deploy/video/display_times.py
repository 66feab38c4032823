"""Presentation times of frames whose container has only decoding times, such as AVI.

FFmpeg guesses the presentation times of their packets, about in the order of the file. With
B-frames that is not the order of display: the guess of a frame is then that of another one.
Decoders return frames in the order of display, so the n-th frame belongs to the n-th smallest time.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LONGEST: Final = 17
"""Frames that may be displayed before one that was decoded earlier, one more than in H.264."""


def has_decoding_times_only(container: InputContainer) -> bool:
    """Return whether the format stores no presentation times; its clock begins at 0."""
    return container.format.name == "avi"


def reorders(stream: VideoStream) -> bool:
    """Return whether frames of a stream may be displayed in another order than decoded."""
    return bool(stream.codec_context.has_b_frames)


class DisplayTimes:
    """A repair of presentation times that were guessed; correct ones are kept.

    A frame is held back while it is not clear whether an earlier time belongs to a lost packet or
    to a frame that comes later: at most `_LONGEST` frames.
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        self._held: list[VideoFrame] = []
        self._guessed = False

    def packet(self, time: int | None) -> None:
        """Note the presentation time of a packet that was decoded without an error."""
        if time is not None:
            heappush(self._times, time)

    def __call__(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield the frames whose times are now certain, `frame` among them or later."""
        self._held.append(frame)
        yield from self._certain()

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the frames that are still held back, at the end of the stream."""
        yield from self._certain(last=True)

    def _certain(self, last: bool = False) -> Iterator[VideoFrame]:
        while self._held:
            time = self._held[0].pts
            if time is None or not self._times:
                pass
            elif self._guessed:
                self._held[0].pts = heappop(self._times)
            elif time <= self._times[0]:
                if time == self._times[0]:
                    heappop(self._times)
            elif any(each.pts == self._times[0] for each in self._held):
                self._guessed = True
                continue
            elif last or len(self._held) > _LONGEST:
                # Its packet was lost, or has no frame.
                heappop(self._times)
                continue
            else:
                return
            yield self._held.pop(0)
