"""Colour chunks of PNG as an ICC profile, for formats that hold only the latter (ICC.1:2022).

The chunks are read by the precedence of the PNG specification: cICP, then an ICC profile, then
sRGB, then gAMA and cHRM.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

COLOUR_CHUNKS: Final = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")

Primaries = tuple[float, ...]
"""x and y of white, red, green and blue."""

_D65: Final = (0.3127, 0.3290)
_SRGB: Final[Primaries] = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_OF_CODE: Final[Mapping[int, Primaries]] = {
    1: _SRGB,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Primaries by their code in ITU-T H.273."""
_SRGB_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Final = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVE_OF_CODE: Final[Mapping[int, tuple[float, ...]]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
}
"""Decoding curves by the code of the transfer function in ITU-T H.273: an exponent, or g, a, b, c
and d of the parametric curve of type 3."""

_SRGB_GAMMA: Final = 45455
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50: Final = np.array([0.9642, 1.0, 0.8249])


@dataclass(frozen=True)
class ColourSpace:
    """An RGB colour space as PNG describes it."""

    primaries: Primaries
    """x and y of white, red, green and blue."""
    curve: tuple[float, ...]
    """Decoding: an exponent, or g, a, b, c, d of the parametric curve of type 3."""

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB, which files without a profile are taken for."""
        near = np.allclose(self.primaries, _SRGB, atol=2e-3)
        return bool(near and self.curve in (_SRGB_CURVE, (100000 / _SRGB_GAMMA,)))


def colour_space(chunks: Sequence[tuple[bytes, bytes]]) -> ColourSpace | None:
    """Return the colour space that chunks describe.

    None if they describe none, are damaged, or describe one that ICC profiles of RGB images do not
    hold (the HDR curves PQ and HLG).
    """
    held = dict(chunks)
    if b"cICP" in held:
        code = held[b"cICP"]
        primaries = _OF_CODE.get(code[0]) if len(code) == 4 else None
        curve = _CURVE_OF_CODE.get(code[1]) if len(code) == 4 else None
        return ColourSpace(primaries, curve) if primaries and curve else None
    if b"sRGB" in held:
        return ColourSpace(_SRGB, _SRGB_CURVE)
    gamma, white = held.get(b"gAMA", b""), held.get(b"cHRM", b"")
    exponent = struct.unpack(">I", gamma)[0] if len(gamma) == 4 else 0
    if not exponent and len(white) != 32:
        return None
    primaries = _SRGB
    if len(white) == 32:
        primaries = tuple(value / 100000 for value in struct.unpack(">8I", white))
    curve = (100000 / exponent,) if exponent else _SRGB_CURVE
    found = ColourSpace(primaries, curve)
    return found if 0.1 < curve[0] < 10 and _matrix(primaries) is not None else None


def nclx_chunk(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the colour that an AVIF or HEIC states in its box colr as a chunk cICP of RGB.

    Empty if the file states none, or sRGB.
    """
    at = data.find(_NCLX, 0, _HEADER_BYTES)
    if at < 0 or at + 8 > len(data):
        return ()
    primaries, transfer = struct.unpack_from(">HH", data, at + len(_NCLX))
    # The curve of BT.709 is what cameras write for pictures that are meant as sRGB.
    plain = primaries in (1, 2) and transfer in (1, 2, 6, 13)
    if plain or not (primaries in _OF_CODE and transfer < 256):
        return ()
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)


_NCLX: Final = b"colrnclx"
_HEADER_BYTES: Final = 2**16


def matrix_profile(space: ColourSpace, grey: bool) -> bytes:
    """Return an ICC profile, version 4, for images of a colour space.

    Args:
        space: The colour space.
        grey: Whether the profile is for grey images, which have the curve alone.

    Raises:
        ValueError: The primaries span no colours.
    """
    matrix = _matrix(space.primaries)
    if matrix is None:
        raise ValueError(f"primaries {space.primaries} span no colours")
    curve = _curve(space.curve)
    tags = {b"desc": _text("PNG colour chunks"), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {name: _xyz(column) for name, column in zip(_COLUMNS, matrix.T, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(tags, b"GRAY" if grey else b"RGB ")


_COLUMNS: Final = (b"rXYZ", b"gXYZ", b"bXYZ")


def _matrix(primaries: Primaries) -> NDArray[np.float64] | None:
    """Return the matrix from linear RGB to XYZ under D50; None for primaries without an area."""
    points = np.array(primaries).reshape(4, 2)
    if not np.isfinite(points).all() or (points[:, 1] <= 0).any():
        return None
    xyz = np.column_stack((points, 1 - points.sum(axis=1))) / points[:, 1:]
    if abs(np.linalg.det(xyz[1:])) < 1e-6:
        return None
    to_xyz = xyz[1:].T * np.linalg.solve(xyz[1:].T, xyz[0])
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ xyz[0])
    adapted: NDArray[np.float64] = np.linalg.solve(_BRADFORD, scale[:, None] * (_BRADFORD @ to_xyz))
    return adapted if np.abs(adapted).max() < 100 else None


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * float(value))) for value in values)


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _curve(numbers: tuple[float, ...]) -> bytes:
    kind = 0 if len(numbers) == 1 else 3
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(numbers)


def _text(words: str) -> bytes:
    coded = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(coded), 28) + coded


def _profile(tags: Mapping[bytes, bytes], space: bytes) -> bytes:
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = table + data
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4sI8sI12s4s44x",
        *(128 + len(body), b"\0\0\0\0", 0x04300000, b"mntr", space, b"XYZ "),
        *(struct.pack(">6H", 2000, 1, 1, 0, 0, 0), b"acsp", b"\0\0\0\0", 0, b"\0\0\0\0", 0),
        *(bytes(8), 0, _fixed(_D50), b"\0\0\0\0"),
    )
    return header + body
