"""The non-blind stage: upscales the LR image with a network that is given the estimated kernel.

Such a network was trained on many images, unlike a method's own image, which is fitted to the LR
image alone. USRNet accepts any kernel. SFTMD supports the kernels of its basis: the kernel is
projected onto it first, and the relative error of the projection is part of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import KernelError
from ikc_deploy.imaging.torch_ops import LEVELS, to_image, to_tensor
from ikc_deploy.kernels import KernelBasis, to_fkp, to_ours
from ikc_deploy.kernels.kernel_checks import MAX_LOST
from ikc_deploy.networks.usrnet import Usrnet
from ikc_deploy.offline.fit_settings import Alignment
from ikc_deploy.offline.forward_model import alignment_offset
from ikc_deploy.runtime.frame_margin import FrameMargin
from ikc_deploy.runtime.nonblind import ROUNDING_NOISE
from ikc_deploy.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class NonBlindResult:
    """The result of a non-blind stage."""

    image: NDArray[np.uint8]
    """SR image, RGB `[sH,sW,3]`."""
    lost: float | None = None
    """Relative error of the kernel that was used; None if it is the given kernel."""


class NonBlindStage(Protocol):
    """A network that upscales an image under a given kernel."""

    @property
    def name(self) -> str:
        """Name in the option `--then` and in the file's name."""
        ...

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """Upscale RGB `[H,W,3]` uint8 under a kernel `[k,k]` in the FKP convention."""
        ...


@dataclass(frozen=True, eq=False)
class UsrnetNonBlind:
    """A stage with USRNet, which uses the given kernel itself."""

    network: Usrnet
    """Network to run."""
    scale: int
    """Scale factor."""
    alignment: Alignment = "centre"
    """Alignment of the HR image, see `forward_model`."""
    device: str = "cpu"
    """Device, "cpu" or "cuda"."""
    name: str = "usrnet"
    """Name in the option `--then` and in the file's name."""

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """Upscale RGB `[H,W,3]` uint8 under a kernel `[k,k]` in the FKP convention."""
        network = self.network.to(self.device).eval()
        blur = torch.from_numpy(kernel.astype(np.float32))[None].to(self.device)
        margin = FrameMargin(len(kernel), self.scale)

        def upscale(padded: NDArray[np.uint8], noise: float) -> NDArray[np.uint8]:
            with torch.inference_mode():
                planes = to_tensor(padded, self.device)
                return to_image(network(planes, blur, self.scale, noise / LEVELS))

        large = margin.upscaled_twice(lr, kernel, ROUNDING_NOISE, upscale)
        before = alignment_offset(self.alignment, self.scale)
        return NonBlindResult(margin.inside(large, lr, before))


@dataclass(frozen=True, eq=False)
class SftmdNonBlind:
    """The SFTMD of a bundle, which uses the nearest kernel of its basis."""

    upscaler: Upscaler
    """Upscaler of the bundle."""
    alignment: Alignment = "centre"
    """Alignment of the HR image, see `forward_model`."""
    name: str = "sftmd"
    """Name in the option `--then` and in the file's name."""

    def __call__(self, lr: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NonBlindResult:
        """Upscale RGB `[H,W,3]` uint8 under a kernel `[k,k]` in the FKP convention.

        Raises:
            KernelError: The relative error of the projected kernel is above `MAX_LOST`.
        """
        bundle = self.upscaler.bundle
        projected, lost = projection(kernel, self.upscaler.scale, bundle.basis)
        if lost > MAX_LOST:
            raise KernelError(
                f"{bundle.manifest.name} does not support this kernel: the nearest one of its "
                f"basis has an error of {lost:.0%}, the limit is {MAX_LOST:.0%}; use --then usrnet"
            )
        scale = self.upscaler.scale
        code = bundle.basis.encode(projected)
        margin = FrameMargin(1, scale)
        large = self.upscaler(margin.padded(lr, "reflect"), code=code).image
        before = alignment_offset(self.alignment, scale) - alignment_offset("centre", scale)
        return NonBlindResult(margin.inside(large, lr, before), lost)


def projection(
    kernel: NDArray[np.floating], scale: int, basis: KernelBasis
) -> tuple[NDArray[np.float64], float]:
    """Project a kernel onto a basis.

    Args:
        kernel: Blur kernel in the FKP convention.
        scale: Scale factor.
        basis: Basis to project onto.

    Returns:
        The nearest kernel `[k,k]` of the basis, and its relative error: the norm of the difference
        between that kernel, converted back to the FKP convention, and the given one, over the norm
        of the given one.
    """
    ours, _ = to_ours(np.asarray(kernel, np.float64), scale)
    projected = basis.decode(basis.encode(ours)).astype(np.float64)
    in_fkp_convention = to_fkp(projected, scale)
    size = max(len(in_fkp_convention), len(kernel))
    difference = padded(in_fkp_convention, size) - padded(kernel, size)
    return projected, float(np.linalg.norm(difference) / np.linalg.norm(kernel))


def padded(kernel: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Return `kernel` `[k,k]` padded with zeros to `[size,size]`; unchanged if not smaller."""
    return np.pad(kernel, max(0, (size - len(kernel)) // 2))
