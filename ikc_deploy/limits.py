"""How far computed images and codes may be from their reference: a gate of exports and engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class ParityLimits:
    """What must hold at every step of the loop."""

    image_db: float
    """Least PSNR of `sr` before rounding to 8 bits, over all channels, peak 1."""
    frame_levels: float
    """Largest distance of a frame from the unrounded reference, in 8-bit levels."""
    code_error: float
    """Largest absolute difference of any code component."""


LIMITS: Final[dict[Literal["fp32", "fp16", "int8"], ParityLimits]] = {
    "fp32": ParityLimits(image_db=90.0, frame_levels=0.51, code_error=1e-4),
    "fp16": ParityLimits(image_db=50.0, frame_levels=6.0, code_error=2e-2),
    "int8": ParityLimits(image_db=25.0, frame_levels=128.0, code_error=1.0),
}
"""By precision; those of INT8 only tell a broken graph, its quality has a gate of its own.
For scale: rounding to 8 bits costs 58.9 dB, and one level everywhere
48.1 dB."""
