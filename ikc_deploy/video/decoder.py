"""Decoding of one video stream; damaged packets are skipped and counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import av

from ikc_deploy.video.clocks import ContinuousClock, can_jump
from ikc_deploy.video.deinterlacing import Deinterlacer
from ikc_deploy.video.display_times import DisplayTimes, has_decoding_times_only, reorders
from ikc_deploy.video.names import Deinterlace

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class Decoder:
    """A decoder of one stream of a container, from its start to its end, skipping damage.

    Args:
        container: Opened container; the caller closes it.
        stream: Its video stream.
        deinterlace: Which frames are deinterlaced; this delays them by one frame.
        live: Whether frames are needed at once; then guessed presentation times stay.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        deinterlace: Deinterlace = "auto",
        live: bool = False,
    ) -> None:
        self.damaged = 0
        """Number of packets so far that could not be decoded."""
        self.repeated: int | None = None
        """Time of the last packet so far that is empty, which repeats the frame before."""
        self.alpha = False
        """Whether packets so far had transparency, which FFmpeg's decoder omits."""
        self._clock = ContinuousClock() if can_jump(container) else None
        self._guessed = has_decoding_times_only(container)
        self._times = None if live or not reorders(stream) else DisplayTimes()
        self._container = container
        self._stream = stream
        # Frame threads delay frames, which a camera must not. They also report damage depending on
        # timing, but a resumed run relies on getting the same frames again.
        stream.thread_type = "SLICE"
        self._deinterlacer = Deinterlacer(deinterlace)
        self._frames = self._deinterlacer(self._timed())

    @property
    def deinterlaced(self) -> bool:
        """Whether frames so far were deinterlaced."""
        return self._deinterlacer.used

    @property
    def jumps(self) -> bool:
        """Whether the clock of the packets so far was reset within the stream."""
        return self._clock is not None and bool(self._clock.jumps)

    def frames(self) -> Iterator[VideoFrame]:
        """Return an iterator over the frames that were not requested yet."""
        return self._frames

    def _timed(self) -> Iterator[VideoFrame]:
        times = self._times
        if times is None:
            yield from self._decode()
            return
        for frame in self._decode():
            yield from times(frame)
        yield from times.flush()

    def _decode(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self.damaged += 1
                return
            if self._clock is not None:
                self._clock(packet)
            if self._guessed:
                packet.pts = packet.dts
            self.alpha = self.alpha or _has_alpha_layer(packet)
            if not packet.size and packet.pts is not None:
                self.repeated = packet.pts
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            if self._times is not None and packet.size:
                self._times.packet(packet.pts)
            yield from frames


def _has_alpha_layer(packet: Packet[VideoStream]) -> bool:
    """Return whether a packet of VP8 or VP9 has a second image for alpha."""
    extra = packet.get_sidedata("matroska_block_additional")
    # The kind comes first: 1 is alpha.
    return bool(extra) and bytes(extra)[:8] == (1).to_bytes(8, "big")
