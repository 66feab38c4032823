"""Tiles of one shape with overlap, upscaled with one kernel code and blended.

Every tile has the same shape, so that one session (one engine, one CUDA graph) serves them all; the
last ones overlap more instead of being smaller. Near a tile's edge the network sees padding where
the frame continues, and its image is wrong there; the width of that border is the *halo*. So tiles
overlap by twice the halo, where the other tile is used, and by `RAMP` pixels more, over which one
fades into the other. The halo is measured on the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.arguments import is_whole
from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import Option
from ikc_deploy.runtime.frames import LAYOUTS, Area, FrameLayout
from ikc_deploy.text import shown

Tile = int | Literal["auto"] | None
"""Tile setting: side of the tiles in LR pixels; "auto" for whole frames where memory allows; None
for whole frames always."""

TILE_STEP: Final = 16
"""Divisor of the sides of tiles and crops: texture is summed in blocks of a quarter of the side,
over every fourth row and column."""

MIN_TILE: Final = 64
"""Minimum side of a tile in LR pixels."""

RAMP: Final = 8
"""Number of LR pixels over which a tile fades into the next."""

SPARE: Final = 2
"""Number of LR pixels added to the halo beyond the last pixel that differs by more than one 8-bit
level: after them the difference is less than half a level (measured: docs/tiling.md)."""

UpscaleTile = Callable[[NDArray[Any]], NDArray[Any]]
"""A function from a frame `[H,W,3]` to its image `[sH,sW,3]` (channels first with io "float")."""

UpscaleArea = Callable[[Area], NDArray[Any]]
"""A function from an area of a frame to its image, in the layout of the frame."""

Span = tuple[slice, NDArray[np.float32]]
"""Position of a tile along an axis in LR pixels, and the weights, one for each SR pixel, with which
it begins to cover the previous tile."""


@dataclass(frozen=True)
class TileSettings:
    """When and how frames are cut into tiles.

    Raises:
        InputError: `tile` or `max_memory` is invalid.
    """

    tile: Annotated[
        Tile,
        Option(
            "Side of the tiles that frames are cut into, in pixels of the input; auto: tiles only "
            "if memory requires them; none: never.",
            heading="Speed and memory",
            metavar="SIDE",
        ),
    ] = "auto"
    max_memory: Annotated[
        int | None,
        Option(
            "Memory that auto may use for the buffers and activations of a frame, for example "
            "800M or 4G.",
            default="half of the free memory",
            heading="Speed and memory",
            metavar="SIZE",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Require a tile size that is a multiple of the step, and a positive limit of memory."""
        if self.max_memory is not None and not is_whole(self.max_memory, 1):
            raise InputError(
                f"max_memory must be a positive number of bytes, got {shown(self.max_memory)}"
            )
        tile_size = self.tile
        if tile_size is None or (isinstance(tile_size, str) and tile_size == "auto"):
            return
        if not is_whole(tile_size, MIN_TILE):
            raise InputError(
                f'tile must be "auto", None, or a side of at least {MIN_TILE} LR pixels, '
                f"got {shown(tile_size)}"
            )
        if tile_size % TILE_STEP:
            raise InputError(f"tile must be a multiple of {TILE_STEP} LR pixels, got {tile_size}")

    def bound(self, free: int | None) -> int | None:
        """Return the memory that a frame may use.

        Args:
            free: Free memory in bytes; None if unknown.

        Returns:
            Bytes; None if unknown.
        """
        return self.max_memory if self.max_memory is not None else free and free // 2

    def tile_size(self, height: int, width: int, pixel_bytes: int, free: int | None) -> int | None:
        """Return the tile size for frames of a shape.

        Args:
            height: Height of a frame in LR pixels.
            width: Width of a frame in LR pixels.
            pixel_bytes: Number of bytes that an LR pixel needs.
            free: Free memory in bytes; None if unknown.

        Returns:
            Side of the tiles in LR pixels; None for whole frames.

        Raises:
            InputError: Memory is too small even for the smallest tile.
        """
        bound = self.bound(free)
        if self.tile != "auto":
            tile_size = self.tile
        elif bound is None or height * width * pixel_bytes <= bound:
            tile_size = None
        else:
            tile_size = _tile_size_that_fits(bound, pixel_bytes)
        return None if tile_size is None or max(height, width) <= tile_size else tile_size


def _tile_size_that_fits(memory: int, pixel_bytes: int) -> int:
    tile_size = TILE_STEP * (math.isqrt(memory // pixel_bytes) // TILE_STEP)
    if tile_size < MIN_TILE:
        raise InputError(
            f"{memory / 2**20:.0f} MiB are too little even for tiles of {MIN_TILE} LR pixels, "
            f"which need {MIN_TILE**2 * pixel_bytes / 2**20:.0f} MiB; allow more memory"
        )
    return tile_size


def upscale_in_tiles(
    frame: NDArray[Any],
    tile_shape: tuple[int, int],
    halo: int,
    io: FrameIO,
    scale: int,
    upscale: UpscaleTile,
) -> NDArray[Any]:
    """Upscale a frame in host memory in tiles and blend them.

    Args:
        frame: `[H,W,3]` uint8 or `[3,H,W]` float32.
        tile_shape: As in `blend_areas`.
        halo: As in `blend_areas`.
        io: Layout and dtype of frames.
        scale: Scale factor.
        upscale: Upscales a tile.

    Returns:
        The image `[sH,sW,3]` uint8 or `[3,sH,sW]` float32.

    Raises:
        InputError: The tiles are too small for the halo.
    """
    layout = LAYOUTS[io]
    height, width = layout.channels_last(frame).shape[:2]

    def upscale_area(area: Area) -> NDArray[Any]:
        return upscale(np.ascontiguousarray(frame[layout.index(area)]))

    return blend_areas((height, width), tile_shape, halo, layout, scale, upscale_area)


def balanced_sides(size: tuple[int, int], tile_size: int, halo: int) -> tuple[int, int]:
    """Return the smallest sides of tiles that need no more tiles than sides of `tile_size`.

    Args:
        size: Height and width of the frame in LR pixels.
        tile_size: Maximum side of the tiles in LR pixels.
        halo: Halo of the network in LR pixels.

    Returns:
        Height and width of the tiles in LR pixels, multiples of `TILE_STEP`; `tile_size` along an
        axis that one tile covers.

    Raises:
        InputError: The tiles are too small for the halo.
    """
    _check_tile_size(tile_size, halo)
    overlap = _overlap(halo)

    def side(length: int) -> int:
        count = _tile_count(length, tile_size, overlap)
        if count == 1:
            return tile_size
        needed = math.ceil((length + (count - 1) * overlap) / count)
        return min(tile_size, TILE_STEP * math.ceil(needed / TILE_STEP))

    return side(size[0]), side(size[1])


def blend_areas(
    size: tuple[int, int],
    tile_shape: tuple[int, int],
    halo: int,
    layout: FrameLayout,
    scale: int,
    upscale: UpscaleArea,
) -> NDArray[Any]:
    """Upscale the tiles of a frame, wherever it is, and blend them.

    Args:
        size: Height and width of the frame in LR pixels.
        tile_shape: Height and width of the tiles in LR pixels; smaller where the frame is.
        halo: Halo of the network in LR pixels, as `measure_halo` returns it.
        layout: Layout of frames.
        scale: Scale factor.
        upscale: Upscales an area.

    Returns:
        The image in the layout of the frame.

    Raises:
        InputError: The tiles are too small for the halo.
    """
    _check_tile_size(min(tile_shape), halo)
    height, width = size
    down, across = tile_shape

    def row_of_tiles(rows: slice) -> NDArray[Any]:
        tiles = (
            (span, layout.channels_last(upscale((rows, span[0]))).swapaxes(0, 1))
            for span in _spans(width, across, halo, scale)
        )
        return _blended(tiles, scale, width).swapaxes(0, 1)

    strips = ((span, row_of_tiles(span[0])) for span in _spans(height, down, halo, scale))
    return layout.from_channels_last(_blended(strips, scale, height))


def measure_halo(upscale: UpscaleTile, tile_size: int, io: FrameIO, scale: int) -> int:
    """Measure how many LR pixels from a tile's edge its image can be wrong.

    Two tiles of noise in black, white and bright colours, the hardest content, are shifted by half
    a side. Where they overlap, their images differ within the halo of their edges.

    Args:
        upscale: Upscales a tile. It should use the widest blur, which has the largest halo.
        tile_size: Side of the tiles in LR pixels.
        io: Layout and dtype of frames.
        scale: Scale factor.

    Returns:
        The halo in LR pixels, `SPARE` included.

    Raises:
        InputError: The halo is larger than such tiles can show.
    """
    random = np.random.default_rng(0)
    blocks = random.integers(
        0, 2, (tile_size // 4, tile_size // 4 + tile_size // 8, 3), dtype=np.uint8
    )
    noise = blocks.repeat(4, axis=0).repeat(4, axis=1)
    layout = LAYOUTS[io]
    noise = (layout.white * noise).astype(layout.dtype)
    shift = noise.shape[1] - tile_size
    first, second = (
        layout.to_8bit_range(
            upscale(layout.from_channels_last(noise[:, start : start + tile_size]))
        )
        for start in (0, shift)
    )
    common = tile_size - shift
    differences = np.abs(first[:, scale * shift :] - second[:, : scale * common])
    wrong = differences.max(axis=(0, 2)).reshape(common, scale).max(axis=1) > 1
    distances = np.minimum(np.arange(common), np.arange(common)[::-1])
    halo = SPARE + 1 + int(distances[wrong].max(initial=-1))
    _check_tile_size(tile_size, tile_size if halo > common // 2 else halo)
    return halo


def _check_tile_size(tile_size: int, halo: int) -> None:
    if tile_size <= _overlap(halo):
        raise InputError(
            f"tiles of {tile_size} LR pixels are too small for this network, whose output at a "
            "pixel depends on too many others; use larger tiles"
        )


def _overlap(halo: int) -> int:
    return 2 * halo + RAMP


def _tile_count(length: int, tile_size: int, overlap: int) -> int:
    return 1 if tile_size >= length else math.ceil((length - overlap) / (tile_size - overlap))


def _spans(length: int, tile_size: int, halo: int, scale: int) -> list[Span]:
    """Return the positions of tiles along an axis, and the weights that cover the previous tile."""
    tile_size = min(tile_size, length)
    count = _tile_count(length, tile_size, _overlap(halo))
    starts = np.linspace(0, length - tile_size, count).round().astype(int).tolist()
    spans = [(slice(0, tile_size), np.empty(0, np.float32))]
    for before, start in pairwise(starts):
        ramp = scale * (before + tile_size - start - 2 * halo)
        weights = np.zeros(scale * halo + ramp, np.float32)
        weights[scale * halo :] = (np.arange(ramp) + 0.5) / ramp
        spans.append((slice(start, start + tile_size), weights))
    return spans


def _blended(parts: Iterable[tuple[Span, NDArray[Any]]], scale: int, length: int) -> NDArray[Any]:
    """Blend parts `[sh,W,3]` of an image along the first axis, and return `[s*length,W,3]`."""
    image: NDArray[Any] | None = None
    for (span, weights), part in parts:
        if image is None:
            image = np.empty((scale * length, *part.shape[1:]), part.dtype)
        top, fading = scale * span.start, len(weights)
        below = image[top : top + fading].astype(np.float32)
        mixed = below + weights[:, None, None] * (part[:fading] - below)
        image[top : top + fading] = np.rint(mixed) if part.dtype == np.uint8 else mixed
        image[top + fading : scale * span.stop] = part[fading:]
    if image is None:
        raise ValueError("an image needs at least one part")
    return image
