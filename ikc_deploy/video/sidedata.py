"""Side data of decoded frames, including frames with kinds that PyAV does not support."""

from __future__ import annotations

import math
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
"""Upper bound of the number of kinds, well above FFmpeg's."""

_ONE: Final = 2**16
_IDENTITY: Final = (_ONE, 0, 0, 0, _ONE, 0, 0, 0, 2**30)
_TOLERANCE: Final = 0.01 * _ONE


def display_matrix(frame: VideoFrame | None) -> tuple[int, ...] | None:
    """Return the display matrix of a frame: nine 16.16 and 2.30 fixed-point numbers, or None."""
    matrix = {} if frame is None else _by_name(frame)
    if "DISPLAYMATRIX" not in matrix:
        return None
    data = bytes(cast("Buffer", matrix["DISPLAYMATRIX"]))
    return struct.unpack("=9i", data) if len(data) == 36 else None


def side_data_bytes(frame: VideoFrame, name: str) -> bytes | None:
    """Return the side data of one of PyAV's names; None if the frame has none."""
    found = _by_name(frame)
    return bytes(cast("Buffer", found[name])) if name in found else None


def side_data_names(frame: VideoFrame | None) -> frozenset[str]:
    """Return PyAV's names of the side data of a frame; STEREO3D only if it has several views."""
    if frame is None:
        return frozenset()
    found = _by_name(frame)
    # The kind comes first; 0 is one view.
    flat = "STEREO3D" in found and not any(bytes(cast("Buffer", found["STEREO3D"]))[:4])
    return frozenset(found) - ({"STEREO3D"} if flat else set())


def turn_only(matrix: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a display matrix without its scaling and stretching; unchanged if it has neither."""
    if matrix is None:
        return None
    a, b, u, c, d, v, x, y, w = matrix
    across, down = math.hypot(a, b), math.hypot(c, d)
    if across == 0 or down == 0:
        return None  # The matrix would make the frame invisible.
    if max(abs(across - _ONE), abs(down - _ONE)) < _TOLERANCE:
        return matrix
    wide, high = math.hypot(a, c) or _ONE, math.hypot(b, d) or _ONE
    first, second = (a / across, b / across), (c / down, d / down)
    unit = [round(_ONE * entry) for entry in (*first, *second)]
    moved = round(_ONE * x / wide), round(_ONE * y / high)
    return unit[0], unit[1], u, unit[2], unit[3], v, *moved, w


def same_turn(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> bool:
    """Return whether two display matrices rotate, flip and stretch equally, ignoring offsets."""
    pairs = zip((first or _IDENTITY)[:6], (second or _IDENTITY)[:6], strict=True)
    return all(abs(one - other) < _TOLERANCE for one, other in pairs)


def _by_name(frame: VideoFrame) -> Mapping[str, Any]:
    try:
        found = list(frame.side_data)
    except ValueError:
        found = list(_only_known(frame).side_data)
    return {cast(Any, each).type.name: each for each in found}


def _only_known(frame: VideoFrame) -> VideoFrame:
    """Return a copy without the side data that PyAV does not support."""
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
