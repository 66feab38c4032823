"""Static HDR metadata (HDR10): mastering display and content light level, and their coding."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ikc_deploy.video.sidedata import side_data_bytes

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_MASTERING: Final = "MASTERING_DISPLAY_METADATA"
_LIGHT: Final = "CONTENT_LIGHT_LEVEL"
_CHROMATICITY_UNITS: Final = 50000
_LUMINANCE_UNITS: Final = 10000


@dataclass(frozen=True)
class StaticHdr:
    """Static HDR metadata of a clip (SMPTE ST 2086, CTA-861.3)."""

    primaries: tuple[tuple[float, float], ...] = ()
    """Chromaticities x, y of red, green, blue and white; empty if not known."""
    luminance: tuple[float, float] = (0.0, 0.0)
    """Largest and smallest luminance of the mastering display in cd/m2."""
    light: tuple[int, int] | None = None
    """Largest and frame-average content light level in cd/m2; None if not known."""

    def options(self, encoder: str) -> dict[str, str]:
        """Return the encoder options that write it, as FFmpeg names them; empty for none."""
        if encoder == "libx265":
            return {"x265-params": ":".join(self._parts("master-display", "max-cll", units=True))}
        if encoder == "libsvtav1":
            parts = self._parts("mastering-display", "content-light", units=False)
            return {"svtav1-params": ":".join(parts)}
        return {}

    def _parts(self, mastering: str, light: str, *, units: bool) -> list[str]:
        parts = []
        if self.primaries:
            red, green, blue, white = (
                ",".join(_number(value, _CHROMATICITY_UNITS if units else None) for value in pair)
                for pair in self.primaries
            )
            bounds = ",".join(
                _number(value, _LUMINANCE_UNITS if units else None) for value in self.luminance
            )
            parts.append(f"{mastering}=G({green})B({blue})R({red})WP({white})L({bounds})")
        if self.light is not None:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return parts


def static_hdr(frame: VideoFrame) -> StaticHdr | None:
    """Return the static HDR metadata of a frame; None if there is none or it is damaged."""
    mastering, light = side_data_bytes(frame, _MASTERING), side_data_bytes(frame, _LIGHT)
    primaries: tuple[tuple[float, float], ...] = ()
    luminance = (0.0, 0.0)
    if mastering is not None and len(mastering) >= 88:
        # Ten fractions (red, green, blue, white, smallest and largest luminance), two flags.
        numbers = struct.unpack("=22i", mastering[:88])
        values = [
            top / bottom if bottom else 0.0
            for top, bottom in zip(numbers[0:20:2], numbers[1:20:2], strict=True)
        ]
        if numbers[20] and numbers[21]:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
            luminance = values[9], values[8]
    levels = struct.unpack("=2I", light[:8]) if light is not None and len(light) >= 8 else None
    if not primaries and levels is None:
        return None
    return StaticHdr(primaries, luminance, levels)


def joined_options(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return encoder options; those with parameter lists in both are joined."""
    return dict(first) | {
        name: f"{first[name]}:{value}" if name in first else value for name, value in second.items()
    }


def _number(value: float, units: int | None) -> str:
    return f"{value:.5f}" if units is None else str(round(units * value))
