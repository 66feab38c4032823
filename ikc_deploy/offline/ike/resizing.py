"""Differentiable bicubic resizing of tensors, by the matrices of `imaging.resize`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ikc_deploy.imaging.resize import bicubic_matrix


def resize(image: Tensor, factor: float) -> Tensor:
    """Resize `[N,C,H,W]` to `[N,C,H*factor,W*factor]`, with sides rounded to whole numbers."""
    rows = _matrix(image.shape[-2], factor, image.dtype, image.device)
    columns = _matrix(image.shape[-1], factor, image.dtype, image.device)
    return rows @ image @ columns.T


@lru_cache(maxsize=32)
def _matrix(length: int, factor: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A copy: the numpy matrix is cached too and must not be written to.
    return torch.from_numpy(np.array(bicubic_matrix(length, factor))).to(device, dtype)
