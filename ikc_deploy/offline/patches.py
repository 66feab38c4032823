"""Random square patches of one image; textured ones are drawn more often."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE: Final = 16 / 255
"""Upper limit of the difference of neighbours, so that strong edges do not dominate sampling."""


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
        # One value for each possible position of a patch.
        texture = F.avg_pool2d(down + right, side, stride=1)[0, 0]
        self._columns = texture.shape[1]
        # Every position has a positive weight, so a nearly flat image can be sampled too.
        self._weights = texture.flatten().cpu().double() + 1e-6

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` patches `[count,3,side,side]`, drawn with replacement."""
        positions = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        patches = [self._patch(*divmod(int(position), self._columns)) for position in positions]
        return torch.cat(patches)

    def _patch(self, top: int, left: int) -> Tensor:
        return self._picture[:, :, top : top + self._side, left : left + self._side]
