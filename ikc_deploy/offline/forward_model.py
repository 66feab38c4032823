"""Blur and sampling in torch, and which picture it is that they are applied to.

An HR picture is known only as far as the LR picture goes, but its blur reaches further: border
pixels of LR saw HR pixels outside. A *canvas* is the HR picture with as many pixels around it as
the blur reaches. Blurring a canvas leaves no border to make assumptions about; whoever wraps
around (the FKP convention on test images) wraps the canvas.

*Alignment* says where LR pixels lie in the picture. Resizing puts each into the middle of its
scale x scale HR pixels ("centre"). FKP's kernels and its test images put it `scale` - 1 pixels
further up and left ("fkp"). The kernel is the same one: another part of the canvas is the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.kernels import fkp_size, lag

Alignment = Literal["centre", "fkp"]
"""See the module."""

LEVELS: Final = 255
"""White in 8 bits."""

_BICUBIC_REACH: Final = 2


@dataclass(frozen=True)
class PaddedHr:
    """The HR pixels that an LR picture of `height` x `width` was made of."""

    height: int
    width: int
    scale: int
    kernel_size: int

    @classmethod
    def of(cls, lr: NDArray[np.uint8], scale: int, kernel_size: int) -> PaddedHr:
        """That of an LR picture `[H,W,3]`."""
        return cls(lr.shape[0], lr.shape[1], scale, kernel_size)

    @property
    def before(self) -> int:
        """Pixels above and to the left of the HR picture."""
        return self.kernel_size // 2

    @property
    def after(self) -> int:
        """Pixels below and to the right: fewer, as sampling begins in the top left corner."""
        return max(0, self.kernel_size // 2 - self.scale + 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas in HR pixels."""
        around = self.before + self.after
        return self.scale * self.height + around, self.scale * self.width + around

    def picture(self, hr: Tensor, alignment: Alignment) -> Tensor:
        """The HR picture `[..., sH, sW]` on a canvas."""
        start = self.before - alignment_offset(alignment, self.scale)
        rows = slice(start, start + self.scale * self.height)
        columns = slice(start, start + self.scale * self.width)
        return hr[..., rows, columns]


def check_alignment(alignment: str) -> None:
    """Raise `InputError` unless `alignment` is an `Alignment`."""
    if alignment not in get_args(Alignment):
        raise InputError(f"alignment must be centre or fkp, got '{alignment}'")


def alignment_offset(alignment: Alignment, scale: int) -> int:
    """HR pixels that a picture begins before one in the FKP alignment, in both directions."""
    return 0 if alignment == "fkp" else lag(scale)


def bicubic_padded_hr(lr: NDArray[np.uint8], padded_hr: PaddedHr) -> Tensor:
    """RGB `[H,W,3]` uint8 upscaled bicubically, border mirrored: float64 `[1,3,*hr.size]`."""
    margin = padded_hr.before // padded_hr.scale + _BICUBIC_REACH
    around = (margin, margin)
    padded = np.pad(lr, (around, around, (0, 0)), mode="symmetric")
    # Bicubic resizing is in the alignment "centre", a canvas in that of FKP.
    first = (
        padded_hr.scale * margin - padded_hr.before + alignment_offset("centre", padded_hr.scale)
    )
    rows, columns = (slice(first, first + side) for side in padded_hr.size)
    large = resize_bicubic(padded, padded_hr.scale)[rows, columns]
    return torch.from_numpy(large.transpose(2, 0, 1)[None] / LEVELS)


def upscaled(
    lr: NDArray[np.uint8], scale: int, alignment: Alignment = "centre"
) -> NDArray[np.uint8]:
    """RGB `[H,W,3]` uint8 upscaled bicubically to `[sH,sW,3]`."""
    padded_hr = PaddedHr.of(lr, scale, fkp_size(scale))
    return to_image(padded_hr.picture(bicubic_padded_hr(lr, padded_hr), alignment))


def degrade(hr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Correlate `[N,C,h,w]` with `kernel` `[k,k]` where it fits, and take every `scale`-th pixel.

    From a whole canvas, that is LR `[N,C,H,W]` in the FKP convention. Differentiable in both.
    """
    channels = hr.shape[1]
    weights = kernel.expand(channels, 1, *kernel.shape)
    return F.conv2d(hr, weights, stride=scale, groups=channels)


def degrade_adjoint(lr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """The transpose of `degrade`: LR `[N,C,H,W]` to a canvas."""
    channels = lr.shape[1]
    weights = kernel.expand(channels, 1, *kernel.shape)
    return F.conv_transpose2d(lr, weights, stride=scale, groups=channels)


def to_tensor(image: NDArray[np.uint8], device: str) -> Tensor:
    """RGB `[H,W,3]` as float32 `[1,3,H,W]` in [0,1]."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(planes).to(device).float()[None] / LEVELS


def to_image(picture: Tensor) -> NDArray[np.uint8]:
    """`[1,3,H,W]` in [0,1], clipped and rounded, as RGB `[H,W,3]`."""
    levels = (LEVELS * picture.detach()).round().clamp(0, LEVELS)
    return levels[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy()
