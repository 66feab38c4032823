"""Time stamps of copied streams: the part to copy, clocks that are reset, invalid values.

Invalid time stamps are repaired as FFmpeg's command line repairs them when it copies streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

import av

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

_TS_DISCONT: Final = cast(int, av.format.Flags.ts_discont.value)
_TS_NONSTRICT: Final = cast(int, av.format.Flags.ts_nonstrict.value)

_GAP: Final = Fraction(10)
"""Maximum forward step of a clock in seconds; a larger step means that the clock was reset."""
_BACK: Final = Fraction(1, 10)
"""Maximum backward step of a clock in seconds; a larger step means that the clock was reset."""
_ALIKE: Final = Fraction(5)
"""Maximum difference in seconds of the same jump between two streams."""


@dataclass(frozen=True)
class Trim:
    """The part of the source to copy, in seconds of its clock."""

    origin: Fraction = Fraction(0)
    """Time that becomes 0 in the output."""
    begin: Fraction | None = None
    """Time before which packets are omitted; None for no limit."""
    end: Fraction | None = None
    """Time from which on packets are omitted; None for no limit."""

    def contains(self, time: Fraction) -> bool:
        """Return whether a packet that begins at `time` is copied."""
        early = self.begin is not None and time < self.begin
        return not early and (self.end is None or time < self.end)


def can_jump(container: InputContainer) -> bool:
    """Return whether the clock of a format may be reset within a file, as in transport streams."""
    return bool(_TS_DISCONT & container.format.flags)


class ContinuousClock:
    """A correction of time stamps that makes a clock with jumps continuous.

    Args:
        jumps: The jumps of the video, as another `ContinuousClock` found them. Only these are
            corrected, in every stream, so that video and audio stay in sync. None to detect jumps.
    """

    def __init__(self, jumps: Sequence[Fraction] | None = None) -> None:
        self._searching = jumps is None
        self.jumps: list[Fraction] = list(jumps or ())
        """Correction of the clock at each jump in seconds, in order."""
        self._passed: dict[int, int] = {}
        self._next: dict[int, Fraction] = {}
        self._latest = 0

    def __call__(self, packet: Packet[Any]) -> None:
        """Correct the time stamps of one packet in place; call in the order of the file."""
        time = packet.pts if packet.dts is None else packet.dts
        if time is None:
            return
        stream, tick = packet.stream, packet.time_base
        if stream.type in ("audio", "video"):
            self._look(stream.index, time * tick, (packet.duration or 0) * tick)
            passed = self._latest = self._passed.get(stream.index, 0)
        else:
            # Too sparse to distinguish a jump from a pause.
            passed = self._latest
        shift = round(sum(self.jumps[:passed]) / tick)
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift

    def _look(self, index: int, time: Fraction, duration: Fraction) -> None:
        expected = self._next.get(index, time)
        if time - expected > _GAP or expected - time > _BACK + duration:
            passed = self._passed.get(index, 0)
            if self._searching:
                self.jumps.append(expected - time)
            known = self.jumps[passed] if passed < len(self.jumps) else None
            if known is not None and abs(known - (expected - time)) < _ALIKE:
                self._passed[index] = passed + 1
        self._next[index] = time + duration


class TimestampRepair:
    """A repair of the time stamps of one stream, so that the muxer of `output` accepts them.

    A missing time stamp is set to the end of the previous packet. A decoding time that does not
    increase is raised to the previous one, plus one tick where the container requires it, and the
    presentation time is never earlier.

    Args:
        output: The output container.
        stream: The stream of `output` that the packets are written to.
    """

    def __init__(self, output: OutputContainer, stream: Stream) -> None:
        self._stream = stream
        self._step = 0 if _TS_NONSTRICT & output.format.flags else 1
        self._last: int | None = None
        self._end = 0

    def __call__(self, packet: Packet[Any]) -> None:
        """Repair a packet in place and convert it to the time base of the output stream."""
        ratio = Fraction(packet.time_base) / cast(Fraction, self._stream.time_base)
        pts, dts = (
            None if time is None else round(time * ratio) for time in (packet.pts, packet.dts)
        )
        dts = dts if dts is not None else pts if pts is not None else self._end
        pts = dts if pts is None else pts
        if dts > pts:
            # One of them is wrong: take the median of both and the earliest valid time.
            least = pts if self._last is None else self._last + 1
            dts = pts = sorted((pts, dts, least))[1]
        if self._last is not None and dts < self._last + self._step:
            dts = self._last + self._step
        packet.pts, packet.dts = max(pts, dts), dts
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base = cast(Fraction, self._stream.time_base)
        packet.stream = self._stream
        self._last, self._end = dts, dts + packet.duration
