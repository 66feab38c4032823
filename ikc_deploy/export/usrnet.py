"""The fourth graph of a bundle: USRNet at one frame size, for kernels that are known.

| graph | inputs | outputs |
| --- | --- | --- |
| `usrnet` | `lr`, `kernel`, `noise` | `frame` with uint8 frames, else `sr` |

`lr` and the output are as those of `sftmd` (see `graphs`), for one frame of a fixed size. `kernel` is
`[1,k,k]` in the FKP convention and `noise` `[1]` the standard deviation of the frame's noise, for
values in [0,1]; both float32. The Fourier transforms are products with constant matrices, which
every engine has, and so the size is fixed. They and all of the data steps are float32; the
convolutions are so, or float16.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle import (
    FrameIO,
)
from ikc_deploy.export.graphs import frames, planes
from ikc_deploy.networks.usrnet import Spectrum, Usrnet

KERNEL_SIDE: Final = 45
"""Of the kernel that the graph takes: the largest of FKP's and of our own 21x21 ones, whose
bicubic shrinking and shift become part of them."""

_SMALLEST_SIDE: Final = 32
"""LR pixels, of which the border takes a share."""


class DftMatrices(nn.Module):
    """What `Fft` does, for planes of one size, with products of constant matrices."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        half = width // 2 + 1
        down, across = _angles(height, height), _angles(width, half)
        # All but the first column, and the middle one of an even width, stand for two.
        weight = np.full(half, 2.0)
        weight[0] = 1
        if width % 2 == 0:
            weight[-1] = 1
        share = weight[:, None] / (height * width)
        self.half = half
        constants = {
            "down_cos": np.cos(down),
            "down_sin": np.sin(down),
            "across": np.concatenate((np.cos(across), -np.sin(across)), axis=1),
            "back": np.concatenate((np.cos(across.T) * share, -np.sin(across.T) * share)),
        }
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))
        self.down_cos: Tensor
        self.down_sin: Tensor
        self.across: Tensor
        self.back: Tensor

    def forward(self, planes: Tensor) -> Spectrum:
        """Of `[..., h, w]` float32."""
        real, imaginary = (planes @ self.across).split(self.half, dim=-1)
        return (
            self.down_cos @ real + self.down_sin @ imaginary,
            self.down_cos @ imaginary - self.down_sin @ real,
        )

    def inverse(self, spectrum: Spectrum, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """Planes `[..., h, w]`."""
        real, imaginary = spectrum
        rows = torch.cat(
            (
                self.down_cos @ real - self.down_sin @ imaginary,
                self.down_cos @ imaginary + self.down_sin @ real,
            ),
            dim=-1,
        )
        return rows @ self.back


def _angles(length: int, frequencies: int) -> NDArray[np.float64]:
    """2 pi n f / length, `[length, frequencies]`, reduced first so that it is exact."""
    turns = np.outer(np.arange(length), np.arange(frequencies)) % length
    return 2 * np.pi * turns / length


class UsrnetGraph(nn.Module):
    """`lr`, `kernel` and `noise` to `frame` or `sr`."""

    def __init__(self, network: Usrnet, scale: int, io: FrameIO) -> None:
        super().__init__()
        self.body, self.scale, self.io = network, scale, io

    def forward(self, lr: Tensor, kernel: Tensor, noise: Tensor) -> Tensor:
        sr = self.body(planes(lr, self.io), kernel, self.scale, noise).clamp(0.0, 1.0)
        return frames(sr) if self.io == "uint8" else sr
