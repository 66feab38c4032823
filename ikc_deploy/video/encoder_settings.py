"""Settings of the video encoder. Does not need PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from ikc_deploy.option_fields import Option, check_options

FAMILIES: Final = {
    "h264": ("h264_nvenc", "libx264"),
    "hevc": ("hevc_nvenc", "libx265"),
    "av1": ("av1_nvenc", "libsvtav1"),
    "vp9": ("libvpx-vp9",),
}
"""Encoders of each codec family, the fastest first; the first that opens is used."""

AUTO: Final = "auto"

_MAX_CRF: Final = 63


@dataclass(frozen=True)
class EncoderSettings:
    """The requested codec and quality of a video file.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    codec: Annotated[
        str,
        Option(
            f"Codec: {', '.join(FAMILIES)} (on the GPU if NVENC opens), or an encoder of FFmpeg.",
            default="h264; vp9 for WebM, hevc above 8 bits or 4096 pixels",
            heading="Output",
        ),
    ] = AUTO
    crf: Annotated[
        float | None,
        Option(
            "Constant quality on the encoder's scale; lower is better.",
            default="by encoder",
            minimum=0,
            maximum=_MAX_CRF,
            heading="Output",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Require every option in its range."""
        check_options(self)
