"""Checks before a fit starts."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.offline.fit_settings import FitDevice
from ikc_deploy.runtime.memory import available_memory


def check_image(
    lr: NDArray[Any], scale: int, scales: tuple[int, ...], min_side: int, method: str
) -> None:
    """Check that a method can be fitted to an LR image.

    Args:
        lr: LR image; must be RGB `[H,W,3]` uint8 and not one flat colour.
        scale: Scale factor.
        scales: Scale factors that the method supports.
        min_side: Smallest side that the method supports, in LR pixels.
        method: Name of the method, for messages.

    Raises:
        InputError: The image or the scale is not supported.
    """
    if lr.ndim != 3 or lr.shape[2] != 3 or lr.dtype != np.uint8:
        raise InputError(
            f"{method} takes RGB [H,W,3] uint8, got {list(lr.shape)} {lr.dtype}; convert it first"
        )
    if scale not in scales:
        known = " and ".join(f"x{known}" for known in scales)
        raise InputError(f"{method} upscales {known}, not x{scale}")
    height, width = lr.shape[:2]
    if min(height, width) < min_side:
        raise InputError(
            f"the image has {width}x{height} pixels; {method} at x{scale} needs "
            f"at least {min_side} on each side to estimate a blur"
        )
    if (lr.min(axis=(0, 1)) == lr.max(axis=(0, 1))).all():
        raise InputError(
            "the image is one flat colour, on which no blur is visible; give another image"
        )


def check_device(device: FitDevice) -> None:
    """Raise `InputError` unless torch can compute on `device`."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device '{device}' cannot be used: {reason}") from error


def check_memory(needed: int, device: str, method: str) -> None:
    """Raise `InputError` if `device` has fewer than `needed` bytes free."""
    free = available_memory() if device == "cpu" else torch.cuda.mem_get_info()[0]
    if free is not None and needed > free:
        raise InputError(
            f"{method} would need about {needed / 2**30:.1f} GiB for this image, and "
            f"{free / 2**30:.1f} GiB are free; fit a part of it with --crop"
        )


def image_digest(lr: NDArray[np.uint8]) -> str:
    """Return the SHA-256 (hex) of an image's size and pixels."""
    digest = hashlib.sha256(repr(lr.shape).encode())
    digest.update(np.ascontiguousarray(lr).tobytes())
    return digest.hexdigest()
