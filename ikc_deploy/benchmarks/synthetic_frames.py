"""Frames for benchmarks: random, reproducible, with the statistics of photographs.

Frames of zeros would distort a benchmark: denormals slow a CPU down, and idle multipliers let a GPU
clock higher. The amplitude spectrum of natural images falls as 1/frequency (Field 1987), and their
colour channels are strongly correlated.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.imaging.resize import quantize

_MEAN: Final = 105.0
_DEVIATION: Final = 55.0
_CORRELATION: Final = 0.88
"""Mean, deviation and correlation of the colour channels, measured on eight Kodak images."""


def natural_frame(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a random RGB frame `[height,width,3]` uint8, determined by size and seed."""
    random = np.random.default_rng(seed)
    shared = np.sqrt(_CORRELATION) * _pink_noise(height, width, random)
    own = np.sqrt(1 - _CORRELATION)
    frame = np.stack([shared + own * _pink_noise(height, width, random) for _ in range(3)], axis=-1)
    return quantize(_MEAN + _DEVIATION * frame)


def _pink_noise(height: int, width: int, random: np.random.Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft2(random.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum / frequency, s=(height, width))
    return noise / noise.std()
