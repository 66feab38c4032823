"""Time stamps that are broken, repaired as FFmpeg's command line repairs them when it copies."""

from __future__ import annotations

from collections.abc import Sequence
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
"""Seconds: a clock that goes on further ahead than this was set anew."""
_BACK: Final = Fraction(1, 10)
"""Seconds that a clock may fall back by without having been set anew."""
_ALIKE: Final = Fraction(5)
"""Seconds by which the same jump may differ between two streams."""


def can_jump(container: InputContainer) -> bool:
    """True for formats whose clock may be set anew on the way: transport streams and their like."""
    return bool(_TS_DISCONT & container.format.flags)


class RunningClock:
    """Moves the time stamps of packets so that a clock that jumps runs on.

    With `jumps`, those of the video as another `RunningClock` found them, only these are evened
    out, in every stream: picture and sound stay together. Without, jumps are looked for.
    """

    def __init__(self, jumps: Sequence[Fraction] | None = None) -> None:
        self._searching = jumps is None
        self.jumps: list[Fraction] = list(jumps or ())
        """Seconds by which the clock is moved at each jump, in order."""
        self._passed: dict[int, int] = {}
        self._next: dict[int, Fraction] = {}
        self._latest = 0

    def __call__(self, packet: Packet[Any]) -> None:
        """Move one packet; they come in the file's order."""
        time = packet.pts if packet.dts is None else packet.dts
        if time is None:
            return
        stream, tick = packet.stream, packet.time_base
        if stream.type in ("audio", "video"):
            self._look(stream.index, time * tick, (packet.duration or 0) * tick)
            passed = self._latest = self._passed.get(stream.index, 0)
        else:
            # Too sparse to tell a jump from a pause.
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


class Repair:
    """Makes the time stamps of one stream such that the muxer of `output` takes them.

    Missing ones are where the packet before ended. A decoding time that does not rise is raised,
    by one tick where the container wants it, and the time of presentation with it.
    """

    def __init__(self, output: OutputContainer, stream: Stream) -> None:
        self._stream = stream
        self._step = 0 if _TS_NONSTRICT & output.format.flags else 1
        self._last: int | None = None
        self._end = 0

    def __call__(self, packet: Packet[Any]) -> None:
        """Repair a packet and bring it to the output's clock, which its header sets."""
        ratio = Fraction(packet.time_base) / cast(Fraction, self._stream.time_base)
        pts, dts = (
            None if time is None else round(time * ratio) for time in (packet.pts, packet.dts)
        )
        dts = dts if dts is not None else pts if pts is not None else self._end
        pts = dts if pts is None else pts
        if dts > pts:
            # One of them is wrong: the one in the middle of what could be is taken.
            least = pts if self._last is None else self._last + 1
            dts = pts = sorted((pts, dts, least))[1]
        if self._last is not None and dts < self._last + self._step:
            dts = self._last + self._step
        packet.pts, packet.dts = max(pts, dts), dts
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base = cast(Fraction, self._stream.time_base)
        packet.stream = self._stream
        self._last, self._end = dts, dts + packet.duration
