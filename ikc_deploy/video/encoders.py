"""Choice and configuration of the video encoder."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av
import numpy as np

from ikc_deploy.errors import EncoderError
from ikc_deploy.video.colour import FromRgb
from ikc_deploy.video.encoder_settings import AUTO, FAMILIES, EncoderSettings
from ikc_deploy.video.hdr import joined_options
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.opening import open_input, open_output
from ikc_deploy.video.output_container import codec_name
from ikc_deploy.video.trial_container import TRIAL, TrialContainer
from ikc_deploy.video.write_errors import FAILURES, explained, reason_of

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_MAX_H264: Final = 4096
"""Maximum width in pixels at which H.264 can be decoded everywhere (level 5.2; NVENC's limit)."""

_MAX_RATE: Final = 240
"""Maximum rate in frames per second that is passed to encoders: SVT-AV1's limit. Files with a
variable rate may declare 1000 and more. It affects rate control only, not time stamps."""

_OPTIONS: Final = {
    "libx264": {"crf": "18"},
    # x265 prints to standard error directly, without FFmpeg's logging.
    "libx265": {"crf": "20", "x265-params": "log-level=error"},
    "libsvtav1": {"crf": "26", "preset": "8"},
    "libvpx-vp9": {"crf": "24", "row-mt": "1"},
    "h264_nvenc": {"rc": "vbr", "cq": "20"},
    "hevc_nvenc": {"rc": "vbr", "cq": "22"},
    "av1_nvenc": {"rc": "vbr", "cq": "28"},
}
"""Default options by encoder, for nearly transparent quality; chosen, not measured."""


# NUT keeps any time base exactly; MOV holds the few codecs that NUT does not support.
_CHUNK_FORMATS: Final = ("nut", "mov")


@dataclass(frozen=True)
class Encoder:
    """An encoder that is available on this machine, with its pixel format and options."""

    name: str
    """FFmpeg's name of the encoder."""
    pixel_format: str
    """FFmpeg's name of the pixel format of its input."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the encoder, as FFmpeg names them."""

    def configure(self, context: VideoCodecContext, facts: StreamFacts) -> None:
        """Configure `context` (not yet open) for frames with `facts`."""
        context.width, context.height = facts.width, facts.height
        context.pix_fmt = self.pixel_format
        context.time_base = facts.time_base
        context.framerate = encoder_rate(facts)
        # PyAV presets 1 Mbit/s, and a bit rate would override the constant quality.
        context.bit_rate = 0
        facts.tag(context)


def choose_encoder(settings: EncoderSettings, facts: StreamFacts, container: str) -> Encoder:
    """Return the first encoder that matches the settings and works on this machine.

    Each candidate encodes one frame of the output's size, which is written to the container:
    problems of drivers, licences and muxers occur only then.

    Args:
        settings: The requested codec and quality.
        facts: Properties of the output.
        container: FFmpeg's name of the output container.

    Raises:
        EncoderError: No candidate works; the message has the reason for each.
    """
    family = _family(facts, container) if settings.codec == AUTO else settings.codec
    reasons = []
    for name in FAMILIES.get(family, (family,)):
        try:
            options = _options(name, settings.crf)
            if facts.hdr is not None:
                options = joined_options(options, facts.hdr.options(name))
            encoder = Encoder(name, _pixel_format(name, facts), options)
            _check_container(TrialContainer(container, coded_frame(encoder, facts), facts))
        except av.codec.codec.UnknownCodecError:
            reasons.append(f"{name}: this FFmpeg has no such encoder")
        except (EncoderError, *FAILURES) as error:
            reasons.append(f"{name}: {reason_of(error)}")
        else:
            return encoder
    raise EncoderError(
        f"no encoder opens for {family} at {facts.width}x{facts.height} ({'; '.join(reasons)}); "
        f"choose another with --codec: {', '.join(FAMILIES)}, or FFmpeg's name of an encoder"
    )


def encoder_rate(facts: StreamFacts) -> Fraction:
    """Return the frame rate for the encoder, which is a hint for its rate control."""
    return min(facts.rate, Fraction(_MAX_RATE))


def _family(facts: StreamFacts, container: str) -> str:
    if container == "webm":
        return "vp9"
    return "hevc" if facts.bits > 8 or facts.width > _MAX_H264 else "h264"


def coded_frame(encoder: Encoder, facts: StreamFacts) -> bytes:
    """Encode one black frame into a container of `chunk_format`; raise what PyAV raises."""
    file = io.BytesIO()
    with open_output(file, chunk_format(encoder.name)) as output:
        stream = output.add_stream(encoder.name, encoder_rate(facts), options=dict(encoder.options))
        video = cast("VideoStream", stream)
        encoder.configure(video.codec_context, facts)
        video.time_base = facts.time_base
        black = np.zeros((facts.height, facts.width, 3), np.uint8)
        frame = FromRgb(facts.colour, encoder.pixel_format)(black)
        frame.pts, frame.time_base = 0, facts.time_base
        output.mux(video.encode(frame))
        output.mux(video.encode())
    return file.getvalue()


def chunk_format(encoder: str) -> str:
    """Return FFmpeg's name of the container for the chunks of an encoder."""
    codec = av.Codec(encoder, "w").canonical_name
    known = open_output(io.BytesIO(), _CHUNK_FORMATS[0]).supported_codecs
    return _CHUNK_FORMATS[0] if codec in known else _CHUNK_FORMATS[1]


def _check_container(trial: TrialContainer) -> None:
    """Raise `EncoderError` unless the coded frame can be written and is read back as its codec."""
    file = io.BytesIO()
    with explained():
        try:
            trial.output(file).write(trial.packets())
        except FAILURES as error:
            raise EncoderError(
                f"{trial.format} does not support it ({reason_of(error)})"
            ) from error
        codecs, found = _codecs(io.BytesIO(trial.coded)), _codecs(file)
    if found != codecs:
        raise EncoderError(f"{trial.format} does not support it (it is read back as {found})")


def _codecs(file: io.BytesIO) -> list[str]:
    """Return the codec of each stream of a file."""
    file.seek(0)
    with closing(open_input(file, TRIAL)) as container:
        return [codec_name(stream) for stream in container.streams]


def _pixel_format(name: str, facts: StreamFacts) -> str:
    offered = [described.name for described in av.Codec(name, "w").video_formats or ()]
    deep = facts.bits > 8
    # An odd side cannot be halved to a whole number of chroma samples.
    chroma = "444" if facts.width % 2 or facts.height % 2 else facts.subsampling
    wanted = [f"yuv{kind}p" for kind in dict.fromkeys((chroma, "420", "422", "444"))]
    if chroma == "444":
        wanted = ["yuv444p"]
    ten = [f"{kind}10le" for kind in wanted] + (["p010le"] if "yuv420p" in wanted else [])
    for candidate in ten if deep else [*wanted, *ten]:
        if candidate in offered:
            return candidate
    raise EncoderError(f"it has no {10 if deep else 8}-bit 4:{chroma[1]}:{chroma[2]} format")


def _options(name: str, crf: float | None) -> dict[str, str]:
    options = dict(_OPTIONS.get(name, {}))
    if crf is None:
        return options
    context = av.CodecContext.create(name, "w")
    known = {option.name for option in context.supported_options.private}
    for option in ("crf", "cq"):
        if option in known:
            return options | {option: f"{crf:g}"}
    raise EncoderError("it has no constant-quality mode; omit --crf")
