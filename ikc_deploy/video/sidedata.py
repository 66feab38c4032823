"""Side data of decoded frames, also where FFmpeg has kinds that PyAV has no name for."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

from av.filter import Graph
from av.sidedata.sidedata import Type

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.video.frame import VideoFrame

_KINDS: Final = 64
"""Far more than FFmpeg has."""

_IDENTITY: Final = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_TOLERANCE: Final = 0.01 * 2**16


def display_matrix(frame: VideoFrame | None) -> tuple[int, ...] | None:
    """How players turn a frame: nine 16.16 and 2.30 fixed-point numbers; None if it is not said."""
    matrix = {} if frame is None else _by_name(frame)
    if "DISPLAYMATRIX" not in matrix:
        return None
    data = bytes(cast("Buffer", matrix["DISPLAYMATRIX"]))
    return struct.unpack("=9i", data) if len(data) == 36 else None


def side_data_names(frame: VideoFrame | None) -> frozenset[str]:
    """PyAV's names of a frame's side data, as far as it has names."""
    return frozenset() if frame is None else frozenset(_by_name(frame))


def same_turn(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> bool:
    """True if two display matrices turn, flip and stretch alike, wherever they move the picture."""
    pairs = zip((first or _IDENTITY)[:6], (second or _IDENTITY)[:6], strict=True)
    return all(abs(one - other) < _TOLERANCE for one, other in pairs)


def _by_name(frame: VideoFrame) -> Mapping[str, Any]:
    try:
        found = list(frame.side_data)
    except ValueError:
        found = list(_only_known(frame).side_data)
    return {cast(Any, each).type.name: each for each in found}


def _only_known(frame: VideoFrame) -> VideoFrame:
    """A copy without the side data at which PyAV fails."""
    known = {cast(int, kind.value) for kind in Type}
    graph = Graph()
    nodes: list[Any] = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        ),
        *(
            graph.add("sidedata", f"mode=delete:type={kind}")
            for kind in range(_KINDS)
            if kind not in known
        ),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return cast("VideoFrame", graph.pull())
