"""The picture made again, by a network that is given the kernel which a method found.

A method's own picture explains the LR picture; a network trained on many knows more about
pictures. USRNet takes any kernel as it is. Our SFTMD knows the kernels of its basis: the kernel
is projected onto that first, and how much of it is lost is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import KernelError
from ikc_deploy.kernels import KernelBasis, to_fkp, to_ours
from ikc_deploy.kernels.kernel_checks import MAX_LOST
from ikc_deploy.networks.usrnet import Usrnet
from ikc_deploy.offline.forward_model import Alignment, alignment_offset, to_image, to_tensor
from ikc_deploy.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class NonBlindResult:
    """A picture made under a found kernel."""

    image: NDArray[np.uint8]
    """RGB `[sH,sW,3]`."""
    lost: float | None = None
    """Relative error of the kernel that it was made under, if that is not the very one."""


class NonBlindStage(Protocol):
    """One way to make the picture again."""

    @property
    def name(self) -> str:
        """As the option and the file are called."""
        ...

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """Upscale RGB `[H,W,3]` uint8 under a kernel `[k,k]` in the FKP convention."""
        ...


@dataclass(frozen=True, eq=False)
class UsrnetNonBlind:
    """USRNet, under the very kernel."""

    network: Usrnet
    scale: int
    alignment: Alignment = "centre"
    device: str = "cpu"
    name: str = "usrnet"

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """See `NonBlindStage`."""
        network = self.network.to(self.device).eval()
        blur = torch.from_numpy(kernel.astype(np.float32))[None].to(self.device)
        # It takes the picture to wrap around; mirrored borders are cut off again.
        margin = min(len(kernel), *lr.shape[:2])
        with torch.inference_mode():
            large = network(to_tensor(_mirrored(lr, margin), self.device), blur, self.scale)
        start = self.scale * margin - alignment_offset(self.alignment, self.scale)
        return NonBlindResult(_cut(to_image(large), start, lr, self.scale))


@dataclass(frozen=True, eq=False)
class SftmdNonBlind:
    """The SR network of a bundle, under the nearest kernel of its basis."""

    upscaler: Upscaler
    alignment: Alignment = "centre"
    name: str = "sftmd"

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """See `NonBlindStage`. Raises `KernelError` if more than `MAX_LOST` of it is lost."""
        bundle = self.upscaler.bundle
        projected, lost = projection(kernel, self.upscaler.scale, bundle.basis)
        if lost > MAX_LOST:
            raise KernelError(
                f"{bundle.manifest.name} does not know this kernel: the nearest one of its basis "
                f"is {lost:.0%} off, and {MAX_LOST:.0%} is the limit; take --then usrnet"
            )
        scale = self.upscaler.scale
        code = bundle.basis.encode(projected)
        large = self.upscaler(_mirrored(lr, 1), code=code).image
        start = scale + alignment_offset("centre", scale) - alignment_offset(self.alignment, scale)
        return NonBlindResult(_cut(large, start, lr, scale), lost)


def projection(
    kernel: NDArray[np.floating], scale: int, basis: KernelBasis
) -> tuple[NDArray[np.float64], float]:
    """A kernel in the FKP convention as one of a basis `[k,k]`, and the relative error of that.

    The error is what the projected kernel does, converted back, less what was asked for, in
    the norm of the kernel.
    """
    ours, _ = to_ours(np.asarray(kernel, np.float64), scale)
    projected = basis.decode(basis.encode(ours)).astype(np.float64)
    does = to_fkp(projected, scale)
    size = max(len(does), len(kernel))
    difference = padded(does, size) - padded(kernel, size)
    return projected, float(np.linalg.norm(difference) / np.linalg.norm(kernel))


def padded(kernel: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """`kernel` `[k,k]` with zeros around it, `[size,size]`; as it is if it is as large already."""
    return np.pad(kernel, max(0, (size - len(kernel)) // 2))


def _mirrored(lr: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    return np.pad(lr, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")


def _cut(
    large: NDArray[np.uint8], start: int, lr: NDArray[np.uint8], scale: int
) -> NDArray[np.uint8]:
    height, width = (scale * side for side in lr.shape[:2])
    return np.ascontiguousarray(large[start : start + height, start : start + width])
