"""The video stream of a container: its facts, and what of it the output does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av

from ikc_deploy.errors import NoVideoError, VideoError
from ikc_deploy.video.colour import UNSPECIFIED, infer_colour, sample_bits, subsampling
from ikc_deploy.video.hdr import static_hdr
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.names import DEFAULT_RATE
from ikc_deploy.video.sidedata import display_matrix, side_data_names, turn_only

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MAX_GUESSED_RATE: Final = 240
"""Maximum frame rate that is believed if only FFmpeg's guess is known."""

_LOST: Final = {
    "SPHERICAL": "the clip is a 360-degree (spherical) video; the output is not marked as such, "
    "and players show it flat",
    "A53_CC": "the clip has closed captions inside its frames, which are left out",
    "DOVI_METADATA": "the clip's Dolby Vision metadata is left out",
    "DYNAMIC_HDR_PLUS": "the clip's HDR10+ metadata is left out",
}
"""Warnings for side data that is not written."""


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the first video stream that FFmpeg can decode and that is not a cover image.

    Raises:
        NoVideoError: There is none.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    for stream in streams:
        # PyAV has no codec context for codecs that FFmpeg does not know.
        if stream.codec_context is not None:
            return stream
    if streams:
        raise NoVideoError(
            f"FFmpeg has no decoder for the video in '{name}'; convert the clip to H.264, for "
            "example with the program that made it"
        )
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise NoVideoError(f"'{name}' has no video stream, only {kinds}; give a clip that has one")


def stream_facts(stream: VideoStream, first: VideoFrame, frames: int | None = None) -> StreamFacts:
    """Return the facts of a stream, from its header and its first frame."""
    name = first.format.name
    coded = stream.codec_context
    return StreamFacts(
        first.width,
        first.height,
        time_base(stream),
        frame_rate(stream),
        infer_colour(
            first.width,
            first.height,
            name,
            _either(first.colorspace, coded.colorspace),
            first.color_range or coded.color_range,
            _either(first.color_primaries, coded.color_primaries),
            _either(first.color_trc, coded.color_trc),
        ),
        sample_bits(name),
        subsampling(name),
        stream.sample_aspect_ratio or Fraction(1),
        # FFmpeg has moved the stretching of the matrix into the pixel aspect ratio.
        turn_only(display_matrix(first)),
        static_hdr(first),
        frames,
    )


def frame_rate(stream: VideoStream) -> Fraction:
    """Return the average frame rate of a stream; a plausible one if it is not known."""
    if stream.average_rate:
        return stream.average_rate
    # FFmpeg's guess for a single frame is the clock of the container.
    guess = stream.guessed_rate
    return guess if guess and guess <= _MAX_GUESSED_RATE else DEFAULT_RATE


def check_size(frame: VideoFrame, facts: StreamFacts, name: str) -> None:
    """Raise `VideoError` unless `frame` has the size in `facts`."""
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise VideoError(
            f"the frame size of '{name}' changes from {facts.width}x{facts.height} to "
            f"{frame.width}x{frame.height}; cut the clip there, with --duration and --start"
        )


def declared_seconds(stream: VideoStream) -> Fraction | None:
    """Return the duration of a stream in seconds from its container; None if not specified."""
    if stream.duration is not None:
        return stream.duration * time_base(stream)
    # Matroska keeps it as a tag: 00:00:04.000000000
    clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if clock is None:
        return None
    end = 3600 * int(clock[1]) + 60 * int(clock[2]) + Fraction(clock[3])
    # Some writers count from 0, some from the first frame.
    begin = (stream.start_time or 0) * time_base(stream)
    return end - begin if 0 < begin < end else end


def lost_properties(stream: VideoStream, frame: VideoFrame, alpha: bool) -> Iterator[str]:
    """Yield a sentence for each property of a stream that the output does not have.

    Args:
        stream: The stream.
        frame: Its first frame.
        alpha: Whether its packets have transparency that the decoder omits.
    """
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if frame.interlaced_frame:
        yield "the clip is interlaced: its fields are upscaled as one frame"
    if (
        alpha
        or tags.get("alpha_mode") == "1"
        or any(component.is_alpha for component in frame.format.components)
    ):
        yield "the clip has transparency, which is left out"
    if turn_only(display_matrix(frame)) != display_matrix(frame):
        yield (
            "the clip's display matrix scales or stretches the frame; of that, only the shape of "
            "the pixels is kept"
        )
    yield from (_LOST[name] for name in sorted(side_data_names(frame) & _LOST.keys()))


def time_base(stream: VideoStream) -> Fraction:
    """Return the duration of one tick of a stream in seconds."""
    return cast(Fraction, stream.time_base)


def _either(first: int, second: int) -> int:
    return second if first == UNSPECIFIED else first
