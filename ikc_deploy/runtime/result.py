"""`Result`: one upscaled frame, or a batch of them, with the estimated blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """One upscaled frame, or a batch of them, with the estimated blur.

    All arrays are newly allocated and owned by the caller. If the frame was in GPU memory, `image`
    and `steps` are `DeviceArray`s, which other libraries can read without a copy (see
    `ikc_deploy.runtime.cuda.arrays`); otherwise they are numpy arrays. Tiled frames always return
    numpy arrays.

    For a batch of N frames, `image` and each of `steps` have a leading axis of length N, `codes` is
    `[t+1, N, code_size]`, `sigma` is `[N]` and `kernel` is `[N, k, k]`.

    Example:
        >>> result = upscaler(frame)  # doctest: +SKIP
        >>> result.image.shape, result.image.dtype  # doctest: +SKIP
        ((360, 640, 3), dtype('uint8'))
        >>> f"sigma {result.sigma:.2f} after {len(result.codes) - 1} corrections"  # doctest: +SKIP
        'sigma 1.84 after 2 corrections'
    """

    image: Any
    """SR frame after the last step, in the layout and dtype of the input: `[sH,sW,3]` uint8,
    or `[3,sH,sW]` float32 in [0,1] from a bundle with io "float"."""
    codes: NDArray[np.float32]
    """Kernel codes h0..ht, `[t+1, code_size]`; the image was computed with the last one. A single
    row if the blur was given; two rows, before and after the correction, if it was tracked."""
    sigma: Any
    """Sigma, in HR pixels, of the isotropic Gaussian nearest to the last code: float, or `[N]`."""
    kernel: NDArray[np.float32]
    """Blur kernel decoded from the last code, `[k, k]`, sum about 1."""
    timings: dict[str, float]
    """Durations in milliseconds: one entry per network, summed over the loop, and `total`, which
    includes the copies to and from the device."""
    corrections: int = 0
    """Number of corrections that were run: 0 if the blur was given, fewer than requested after an
    early stop. The maximum over a batch, or over crops or tiles."""
    noise: Any = None
    """Estimated standard deviation of the noise in the frame, in 8-bit levels: float or `[N]`;
    None if the weights do not estimate it."""
    jpeg_quality: Any = None
    """Estimated JPEG quality of the frame, 100 for no compression: float or `[N]`; None if the
    weights do not estimate it."""
    steps: tuple[Any, ...] = ()
    """Images of all steps 0..t if requested with `steps=True`, else empty."""
