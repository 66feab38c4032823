"""Random square patches of one image; textured ones are drawn more often."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE: Final = 16 / 255
"""Limit of the difference of neighbours; without it, a few hard edges would get all draws."""


class Patches:
    """A sampler of patches of `side` pixels of an image `[1,3,H,W]`, in proportion to texture.

    Texture is the mean absolute difference of neighbouring pixels, each limited to `EDGE`.

    Args:
        picture: Image `[1,3,H,W]` in [0,1].
        side: Side of a patch in pixels.
    """

    def __init__(self, picture: Tensor, side: int) -> None:
        self._picture = picture
        self._side = side
        grey = picture.mean(dim=1, keepdim=True)
        down = F.pad(grey.diff(dim=2).abs().clamp(max=EDGE), (0, 0, 1, 0))
        right = F.pad(grey.diff(dim=3).abs().clamp(max=EDGE), (1, 0))
        # One value for each possible place of a patch.
        texture = F.avg_pool2d(down + right, side, stride=1)[0, 0]
        self._columns = texture.shape[1]
        # Every place has a positive weight, so a nearly flat image can be sampled too.
        self._weights = texture.flatten().cpu().double() + 1e-6

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` patches `[count,3,side,side]`, drawn with replacement."""
        places = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        squares = [self._cut(*divmod(int(place), self._columns)) for place in places]
        return torch.cat(squares)

    def _cut(self, top: int, left: int) -> Tensor:
        return self._picture[:, :, top : top + self._side, left : left + self._side]
