"""Gaussian8, the evaluation protocol of IKC and its successors (IKC, section 4.1).

Every HR image is blurred by eight isotropic Gaussians (21x21, reflected border), downscaled
bicubically and rounded to 8 bits. Reported values are means over images and sigmas.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.resize import quantize, resize_bicubic
from ikc_deploy.kernels import gaussian_kernel

SIGMAS: Final[dict[int, tuple[float, ...]]] = {
    scale: tuple(np.linspace(low, high, 8).round(6).tolist())
    for scale, (low, high) in {2: (0.8, 1.6), 3: (1.35, 2.4), 4: (1.8, 3.2)}.items()
}
"""Eight uniform steps of sigma for each scale, in HR pixels."""


def crop_to_multiple(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return the top left part of an image whose sides are multiples of `scale`.

    Args:
        image: HR image `[H,W,3]`, uint8.
        scale: Scale factor s, 1 or more.

    Returns:
        A view of `image`, `[s*(H//s), s*(W//s), 3]`.

    Raises:
        InputError: A side of the result is shorter than 16 pixels.
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
    """Correlate an image with a blur kernel, with a reflected border (edge pixels not repeated).

    Args:
        image: Image `[H,W,C]`, of any range.
        kernel: Square blur kernel `[k,k]`, k odd and k // 2 less than H and W.

    Returns:
        The blurred image `[H,W,C]`, float64, not clipped.
    """
    side = kernel.shape[0]
    reach = side // 2
    padded = np.pad(image.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel[::-1, ::-1].astype(np.float64), s=shape)[:, :, None]
    blurred = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return blurred[side - 1 :, side - 1 :]


def degrade(hr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int) -> NDArray[np.uint8]:
    """Blur an HR image, downscale it bicubically and round it to 8 bits (IKC, without noise).

    Args:
        hr: HR image `[H,W,3]`, uint8, with sides that are multiples of `scale`.
        kernel: Blur kernel `[k,k]` at HR resolution, k odd.
        scale: Scale factor s.

    Returns:
        The LR image `[H/s,W/s,3]`, uint8.
    """
    lr = resize_bicubic(blur(hr, kernel), 1 / scale)
    return quantize(lr)


def degrade_gaussian(hr: NDArray[np.uint8], sigma: float, scale: int) -> NDArray[np.uint8]:
    """Call `degrade` with the isotropic Gaussian whose width is `sigma` HR pixels."""
    return degrade(hr, gaussian_kernel(sigma), scale)
