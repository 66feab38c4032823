"""Colour of coded video: matrix and range of a stream, and conversion of frames to RGB and back.

Numbers are the code points of ITU-T H.273, which FFmpeg uses too. For a stream without colour tags,
the values that players assume at its resolution are used, and the output is tagged with them:
otherwise a 480p clip upscaled to 1080p would be shown with the HD matrix.

Conversions use libswscale, with explicit matrix, ranges and chroma position (through libavfilter's
`scale`: PyAV's `reformat` assumes that 4:2:0 chroma lies between the pixels). Measured against the
formula in float64, the result is correct within rounding for limited range, and for 8-bit full
range to RGB. It is not correct for full range with more than 8 bits (white is 1020 instead of
1023), and for RGB to full-range YUV (chroma is truncated, half a level too low). In these cases the
range is converted exactly, by a table on 16-bit planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from ikc_deploy.errors import VideoError
from ikc_deploy.video.write_errors import reason_of

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

UNSPECIFIED: Final = 2
"""Code point "unspecified" of matrix, primaries and transfer."""

BT709: Final = 1
BT470BG: Final = 5
SMPTE170M: Final = 6

_MATRIX_NAMES: Final = {
    BT709: "bt709",
    4: "fcc",
    BT470BG: "bt470",
    SMPTE170M: "smpte170m",
    7: "smpte240m",
    9: "bt2020",
}
"""libswscale's names of the matrices that it supports, by code point."""

# The code points with a meaning. 0 is the RGB matrix, which is not meaningful for a YUV stream.
_MATRICES: Final = frozenset((1, *range(4, 18)))
_PRIMARIES: Final = frozenset((1, *range(4, 13), 22))
_TRANSFERS: Final = frozenset((1, *range(4, 19)))

# Without the last three flags, 4:2:0 comes out up to 3 levels off.
_FLAGS: Final = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


@dataclass(frozen=True)
class Colour:
    """The colour coding of a stream, as code points of ITU-T H.273.

    Raises:
        VideoError: The matrix is not supported.
    """

    matrix: int = BT709
    """Code point of the matrix coefficients."""
    full_range: bool = False
    """Whether samples use the full range, not the limited one."""
    primaries: int = BT709
    """Code point of the colour primaries."""
    transfer: int = BT709
    """Code point of the transfer characteristics."""

    def __post_init__(self) -> None:
        """Require a colour matrix that the conversion supports."""
        if self.matrix not in _MATRIX_NAMES:
            raise VideoError(
                f"the colour matrix {self.matrix} (ITU-T H.273) is not supported; convert the "
                f"clip to one of {', '.join(_MATRIX_NAMES.values())} first"
            )


def infer_colour(
    width: int,
    height: int,
    pixel_format: str,
    matrix: int = UNSPECIFIED,
    colour_range: int = 0,
    primaries: int = UNSPECIFIED,
    transfer: int = UNSPECIFIED,
) -> Colour:
    """Return the colour coding of a stream, with unspecified values inferred from its size.

    HD (a side of 1280 pixels or more, or the shorter side above 576) is BT.709. Smaller frames are
    BT.601: the 625-line system if they have 576 lines, the 525-line system if they have 480. RGB
    becomes BT.709, limited range.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        pixel_format: FFmpeg's name of the pixel format.
        matrix: Code point of the matrix.
        colour_range: 1 for limited, 2 for full, 0 for unspecified.
        primaries: Code point of the primaries.
        transfer: Code point of the transfer characteristics.

    Raises:
        VideoError: The matrix is not supported.
    """
    if av.VideoFormat(pixel_format).is_rgb:
        return Colour(
            BT709, False, _said(primaries, BT709, _PRIMARIES), _said(transfer, BT709, _TRANSFERS)
        )
    # The formats yuvj... are FFmpeg's old names of full range; grey is full unless specified.
    full = colour_range == 2 or (colour_range == 0 and pixel_format.startswith(("yuvj", "gray")))
    if max(width, height) >= 1280 or min(width, height) > 576:
        guess = (BT709, BT709, BT709)
    elif height == 576:
        guess = (BT470BG, BT470BG, SMPTE170M)
    elif height in (480, 486):
        guess = (SMPTE170M, SMPTE170M, SMPTE170M)
    else:
        guess = (SMPTE170M, BT709, BT709)
    return Colour(
        _said(matrix, guess[0], _MATRICES),
        full,
        _said(primaries, guess[1], _PRIMARIES),
        _said(transfer, guess[2], _TRANSFERS),
    )


def _said(value: int, guess: int, meaning: frozenset[int]) -> int:
    """Return `value` if the standard defines it, otherwise (reserved, unspecified) `guess`."""
    return value if value in meaning else guess


class ToRgb:
    """A converter of decoded frames with the given colour coding to RGB.

    Values outside the nominal range (super-white, out of gamut) are clipped to 0..255.

    Args:
        colour: Colour coding of the frames; ignored for frames in RGB formats.
    """

    def __init__(self, colour: Colour) -> None:
        self._colour = colour
        self._graphs = _Graphs()
        self._repack = _Graphs()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert `frame` to RGB in a new array `[H,W,3]` uint8; raise `VideoError` on failure."""
        if frame.format.is_rgb:
            return self._array(self._graphs.convert(frame, f"scale=flags={_FLAGS}", "rgb24"))
        full, position = self._colour.full_range, ""
        if full and sample_bits(frame.format.name) > 8:
            frame = self._limited(frame)
            full, position = False, ":in_chroma_loc=left"
        scale = (
            f"scale=in_color_matrix={_MATRIX_NAMES[self._colour.matrix]}"
            f":in_range={_range(full)}:out_range=full{position}:flags={_FLAGS}"
        )
        return self._array(self._graphs.convert(frame, scale, "rgb24"))

    def _limited(self, frame: VideoFrame) -> VideoFrame:
        """Convert a full-range frame of more than 8 bits to limited range and 16 bits."""
        name = frame.format.name
        planar = _planar(name, sample_bits(name))
        if name != planar:
            same_range = f"scale=in_range=full:out_range=full:flags={_FLAGS}"
            frame = self._repack.convert(frame, same_range, planar)
        return _with_planes(frame, _planar(name, 16), from_full=True, to_full=False)

    def _array(self, frame: VideoFrame) -> NDArray[np.uint8]:
        return np.ascontiguousarray(frame.to_ndarray(), np.uint8)


class FromRgb:
    """A converter of RGB to frames in the pixel format of an encoder, with colour tags.

    Args:
        colour: Colour coding of the frames.
        pixel_format: FFmpeg's name of the pixel format.
    """

    def __init__(self, colour: Colour, pixel_format: str) -> None:
        self._colour = colour
        self._format = pixel_format
        self._graphs = _Graphs()

    def __call__(self, rgb: NDArray[np.uint8]) -> VideoFrame:
        """Convert `[H,W,3]` uint8 to the pixel format; chroma is sited left, as in H.264."""
        colour = self._colour
        scale = (
            f"scale=out_color_matrix={_MATRIX_NAMES[colour.matrix]}"
            f":out_range={_range(colour.full_range)}:out_chroma_loc=left:flags={_FLAGS}"
        )
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        name = self._format
        if av.VideoFormat(name).is_rgb:
            return self._graphs.convert(frame, f"scale=flags={_FLAGS}", name)
        if colour.full_range:
            wide = self._graphs.convert(frame, scale, _planar(name, 16))
            planar = _planar(name, sample_bits(name))
            frame = _with_planes(wide, planar, from_full=True, to_full=True)
            frame = frame if planar == name else frame.reformat(format=name)
        else:
            frame = self._graphs.convert(frame, scale, name)
        return self._tagged(frame)

    def _tagged(self, frame: VideoFrame) -> VideoFrame:
        frame.colorspace = self._colour.matrix
        frame.color_range = 2 if self._colour.full_range else 1
        frame.color_primaries = self._colour.primaries
        frame.color_trc = self._colour.transfer
        return frame


def matrix_name(colour: Colour) -> str:
    """Return the usual name of a colour matrix; both BT.601 systems have the same one."""
    return "smpte170m" if colour.matrix == BT470BG else _MATRIX_NAMES[colour.matrix]


def sample_bits(pixel_format: str) -> int:
    """Return the bits per sample of the first plane of an FFmpeg pixel format."""
    return av.VideoFormat(pixel_format).components[0].bits


def subsampling(pixel_format: str) -> str:
    """Return the coarsest chroma subsampling that keeps the chroma of a pixel format.

    Args:
        pixel_format: FFmpeg's name of the pixel format.

    Returns:
        "420", "422" or "444"; "420" for grey, "444" for RGB.
    """
    described = av.VideoFormat(pixel_format)
    if described.is_rgb:
        return "444"
    if len(described.components) < 3:
        return "420"
    if described.chroma_width(4) >= 4:
        return "444"
    return "420" if described.chroma_height(4) < 4 else "422"


class _Graphs:
    """A cache of one filter graph, which is rebuilt when the input format or conversion changes."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._graph: Graph

    def convert(self, frame: VideoFrame, scale: str, to: str) -> VideoFrame:
        key = (frame.width, frame.height, frame.format.name, scale, to)
        if key != self._key:
            self._graph = _graph(frame, scale, to)
            self._key = key
        frame.pts = None
        # They are given in `scale` where they matter. libswscale rejects reserved code points and
        # unknown transfers even where it does not use them.
        frame.colorspace = frame.color_primaries = frame.color_trc = UNSPECIFIED
        try:
            self._graph.push(frame)
            return self._graph.pull()  # type: ignore[return-value]
        except av.FFmpegError as error:
            raise VideoError(
                f"frames of {frame.format.name} cannot be converted to {to}: {reason_of(error)}"
            ) from error


def _graph(frame: VideoFrame, scale: str, to: str) -> Graph:
    name, _, arguments = scale.partition("=")
    graph = Graph()
    nodes: list[Any] = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1),
        ),
        graph.add(name, arguments),
        graph.add("format", to),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _with_planes(frame: VideoFrame, to: str, from_full: bool, to_full: bool) -> VideoFrame:
    """Convert a planar YUV frame to another depth and range by table, with the same subsampling."""
    result = av.VideoFrame(frame.width, frame.height, to)
    bits = sample_bits(frame.format.name), sample_bits(to)
    for index, (source, target) in enumerate(zip(frame.planes, result.planes, strict=True)):
        table = _table(*bits, from_full, to_full, index > 0)
        # Raw video may have samples beyond its bits.
        _samples(target, bits[1])[:] = table.take(_samples(source, bits[0]), mode="clip")
    return result


def _samples(plane: Any, bits: int) -> NDArray[Any]:
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    return rows[:, : plane.width]


@cache
def _table(
    from_bits: int, to_bits: int, from_full: bool, to_full: bool, chroma: bool
) -> NDArray[Any]:
    from_zero, from_span = _levels(from_bits, from_full, chroma)
    to_zero, to_span = _levels(to_bits, to_full, chroma)
    value = (np.arange(2**from_bits) - from_zero) / from_span
    code = np.rint(to_zero + to_span * value).clip(0, 2**to_bits - 1)
    return code.astype(np.uint8 if to_bits == 8 else np.uint16)


def _levels(bits: int, full: bool, chroma: bool) -> tuple[int, int]:
    """Return the code of 0, and the codes between 0 and 1 (ITU-T H.273, clause 8.3)."""
    if full:
        return (2 ** (bits - 1) if chroma else 0), 2**bits - 1
    step = 2 ** (bits - 8)
    return (128 * step, 224 * step) if chroma else (16 * step, 219 * step)


def _planar(pixel_format: str, bits: int) -> str:
    return f"yuv{subsampling(pixel_format)}p" + (f"{bits}le" if bits > 8 else "")


def _range(full: bool) -> str:
    return "full" if full else "limited"
