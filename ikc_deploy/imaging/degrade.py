"""Gaussian8: the protocol on which IKC and its successors report (IKC, section 4.1).

Every HR image is blurred by eight isotropic Gaussians (21x21, reflected border), shrunk bicubically
and rounded to 8 bits. Figures are means over images and sigmas.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.kernels import gaussian_kernel

SIGMAS: Final[dict[int, tuple[float, ...]]] = {
    scale: tuple(np.linspace(low, high, 8).round(6).tolist())
    for scale, (low, high) in {2: (0.8, 1.6), 3: (1.35, 2.4), 4: (1.8, 3.2)}.items()
}
"""Eight uniform steps of sigma for each scale, in HR pixels."""


def crop_to_multiple(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The top left part of `[H,W,3]` whose sides are multiples of `scale`.

    Raises `InputError` for an image that is smaller than the blur kernel's reach.
    """
    height, width = (side - side % scale for side in image.shape[:2])
    if min(height, width) < 16:
        raise InputError(
            f"an HR image of {image.shape[1]}x{image.shape[0]} pixels is too small to degrade; "
            "both sides need at least 16"
        )
    return image[:height, :width]


def blur(
    image: NDArray[np.floating] | NDArray[np.uint8], kernel: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Correlate `[H,W,C]` with an odd, square kernel; the border is reflected (edge kept once)."""
    side = kernel.shape[0]
    reach = side // 2
    padded = np.pad(image.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel[::-1, ::-1].astype(np.float64), s=shape)[:, :, None]
    blurred = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return blurred[side - 1 :, side - 1 :]


def degrade(hr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int) -> NDArray[np.uint8]:
    """The LR image `[H/s,W/s,3]` uint8 of an HR image `[H,W,3]` uint8 with sides multiples of s."""
    lr = resize_bicubic(blur(hr, kernel), 1 / scale)
    return quantize(lr)


def degrade_gaussian(hr: NDArray[np.uint8], sigma: float, scale: int) -> NDArray[np.uint8]:
    """`degrade` with the isotropic Gaussian of `sigma` HR pixels."""
    return degrade(hr, gaussian_kernel(sigma), scale)


def upscale_bicubic(lr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The bicubic baseline, `[H,W,3]` uint8 to `[s*H,s*W,3]` uint8."""
    return quantize(resize_bicubic(lr, scale))


def quantize(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round to uint8, clipped to 0..255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
