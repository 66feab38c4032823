"""Rectangles of bytes in device memory: a part of one array, copied into a part of another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ikc_deploy.runtime.backends.base import Index


@dataclass(frozen=True)
class ArrayPart:
    """A part of a C-contiguous array."""

    address: int
    """Address of the array."""
    shape: tuple[int, ...]
    """Shape of the array."""
    index: Index
    """Slices with start and stop, one for each axis."""

    def is_full(self, axis: int) -> bool:
        """Return whether the part has all of an axis."""
        return (self.index[axis].start, self.index[axis].stop) == (0, self.shape[axis])

    def stride(self, axis: int) -> int:
        """Return the distance between neighbours on an axis, in entries."""
        return math.prod(self.shape[axis + 1 :])


@dataclass(frozen=True)
class Rectangle:
    """One copy of `height` rows of `width` bytes."""

    source: int
    """Address of the first byte to read."""
    source_pitch: int
    """Bytes from one row to the next."""
    target: int
    """Address of the first byte to write."""
    target_pitch: int
    """Bytes from one row to the next."""
    width: int
    """Bytes in a row."""
    height: int
    """Number of rows."""


def rectangles(source: ArrayPart, target: ArrayPart, itemsize: int) -> Iterator[Rectangle]:
    """Yield the fewest rectangles that copy one block into another.

    Args:
        source: The block to read.
        target: The block to write, with slices of the same lengths.
        itemsize: Bytes of an entry.
    """
    axes = len(source.shape)
    # Axes that both arrays have in full belong to the rows.
    inner = axes - 1
    while inner > 0 and source.is_full(inner) and target.is_full(inner):
        inner -= 1
    lengths = [part.stop - part.start for part in source.index]
    width = math.prod(lengths[inner:]) * itemsize
    rows = max(0, inner - 1)
    height = lengths[rows] if inner > 0 else 1
    for place in product(*(range(length) for length in lengths[:rows])):
        starts = (*place, *[0] * (axes - rows))
        first, second = (
            block.address
            + itemsize
            * sum(
                (part.start + start) * block.stride(axis)
                for axis, (part, start) in enumerate(zip(block.index, starts, strict=True))
            )
            for block in (source, target)
        )
        pitches = source.stride(rows) * itemsize, target.stride(rows) * itemsize
        yield Rectangle(first, pitches[0], second, pitches[1], width, height)
