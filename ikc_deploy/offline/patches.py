"""Random squares of one picture, those with texture more often."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE: Final = 16 / 255
"""Differences of neighbours count as this much at most: else a few hard edges get all draws."""


class Patches:
    """Squares of `side` pixels of a picture `[1,3,H,W]`, drawn in proportion to their texture.

    Texture is the mean absolute difference of neighbouring pixels.
    """

    def __init__(self, picture: Tensor, side: int) -> None:
        self._picture = picture
        self._side = side
        grey = picture.mean(dim=1, keepdim=True)
        down = F.pad(grey.diff(dim=2).abs().clamp(max=EDGE), (0, 0, 1, 0))
        right = F.pad(grey.diff(dim=3).abs().clamp(max=EDGE), (1, 0))
        # One value for each place that a patch can have.
        texture = F.avg_pool2d(down + right, side, stride=1)[0, 0]
        self._columns = texture.shape[1]
        # No place is impossible, so that a nearly flat picture has places at all.
        self._weights = texture.flatten().cpu().double() + 1e-6

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`[count,3,side,side]`."""
        places = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        squares = [self._cut(*divmod(int(place), self._columns)) for place in places]
        return torch.cat(squares)

    def _cut(self, top: int, left: int) -> Tensor:
        return self._picture[:, :, top : top + self._side, left : left + self._side]
