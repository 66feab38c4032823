"""Blur and sampling in torch, and the geometry of the HR image that they are applied to.

Border pixels of the LR image depend on HR pixels outside the area of the LR image. A *padded HR
image* includes them: it has a margin as wide as the blur, so no assumption about the border is
needed. For a periodic border (FKP's test images), the margin is filled by wrapping around.

*Alignment* specifies the position of LR pixels in the HR image. In resizing, each lies in the
middle of its scale x scale HR pixels ("centre"). In FKP's test images, it lies `scale` - 1 pixels
further up and left ("fkp"). The kernel is the same; the HR image is another part of the padded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.imaging.torch_ops import LEVELS, correlate, to_image
from ikc_deploy.kernels import fkp_size, lag
from ikc_deploy.offline.fit_settings import Alignment

_BICUBIC_REACH: Final = 2


@dataclass(frozen=True)
class PaddedHr:
    """The geometry of the padded HR image: all HR pixels that an LR image depends on."""

    height: int
    """Height of the LR image in pixels."""
    width: int
    """Width of the LR image in pixels."""
    scale: int
    """Scale factor."""
    kernel_size: int
    """Side k of the blur kernel `[k,k]` in HR pixels."""

    @classmethod
    def of(cls, lr: NDArray[np.uint8], scale: int, kernel_size: int) -> PaddedHr:
        """Return the geometry for an LR image `[H,W,3]`."""
        return cls(lr.shape[0], lr.shape[1], scale, kernel_size)

    @property
    def before(self) -> int:
        """Number of pixels above and to the left of the HR image, in the FKP alignment."""
        return self.kernel_size // 2

    @property
    def after(self) -> int:
        """Number of pixels below and to the right; smaller, as sampling begins at the top left."""
        return max(0, self.kernel_size // 2 - self.scale + 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the padded HR image in pixels."""
        around = self.before + self.after
        return self.scale * self.height + around, self.scale * self.width + around

    def picture(self, hr: Tensor, alignment: Alignment) -> Tensor:
        """Return the HR image `[...,sH,sW]` inside a padded one `[...,*size]`, as a view."""
        start = self.before - alignment_offset(alignment, self.scale)
        rows = slice(start, start + self.scale * self.height)
        columns = slice(start, start + self.scale * self.width)
        return hr[..., rows, columns]


def alignment_offset(alignment: Alignment, scale: int) -> int:
    """Return the offset, in HR pixels on each axis, of an image before one in FKP's alignment."""
    return 0 if alignment == "fkp" else lag(scale)


def bicubic_padded_hr(lr: NDArray[np.uint8], padded_hr: PaddedHr) -> Tensor:
    """Upscale RGB `[H,W,3]` uint8 bicubically to a padded HR image, with mirrored borders.

    Returns:
        float64 `[1,3,*padded_hr.size]` in [0,1].
    """
    margin = padded_hr.before // padded_hr.scale + _BICUBIC_REACH
    around = (margin, margin)
    padded = np.pad(lr, (around, around, (0, 0)), mode="symmetric")
    # Bicubic resizing is in the alignment "centre", a padded HR image in that of FKP.
    first = (
        padded_hr.scale * margin - padded_hr.before + alignment_offset("centre", padded_hr.scale)
    )
    rows, columns = (slice(first, first + side) for side in padded_hr.size)
    large = resize_bicubic(padded, padded_hr.scale)[rows, columns]
    return torch.from_numpy(large.transpose(2, 0, 1)[None] / LEVELS)


def upscaled(
    lr: NDArray[np.uint8], scale: int, alignment: Alignment = "centre"
) -> NDArray[np.uint8]:
    """Upscale RGB `[H,W,3]` uint8 bicubically to `[sH,sW,3]` uint8."""
    padded_hr = PaddedHr.of(lr, scale, fkp_size(scale))
    return to_image(padded_hr.picture(bicubic_padded_hr(lr, padded_hr), alignment))


def degrade(hr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Correlate `[N,C,h,w]` with `kernel` `[k,k]` where it fits, and take every `scale`-th pixel.

    The result for a padded HR image is the LR image `[N,C,H,W]` in the FKP convention.
    Differentiable in `hr` and `kernel`.
    """
    return correlate(hr, kernel.expand(len(hr), -1, -1), scale)


def degrade_adjoint(lr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Apply the transpose of `degrade`: LR `[N,C,H,W]` to a padded HR image."""
    channels = lr.shape[1]
    weights = kernel.expand(channels, 1, *kernel.shape)
    return F.conv_transpose2d(lr, weights, stride=scale, groups=channels)
