from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from ikc_deploy.errors import EncoderError
from ikc_deploy.video.encoder_settings import FAMILIES, EncoderSettings
from ikc_deploy.video.encoders import choose_encoder
from tests.video.clips import facts


@pytest.mark.parametrize(
    ("stream", "container", "family", "pixel_format"),
    [
        ({}, "mp4", "h264", "yuv420p"),
        ({"bits": 10}, "mp4", "hevc", "10"),
        ({"bits": 12, "subsampling": "422"}, "matroska", "hevc", "10"),
        ({"width": 4160}, "mp4", "hevc", "yuv420p"),
        ({"width": 81}, "mp4", "h264", "yuv444p"),
        ({"subsampling": "444"}, "mp4", "h264", "yuv444p"),
        ({}, "webm", "vp9", "yuv420p"),
    ],
)
def test_auto_goes_by_depth_size_and_container(
    stream: dict[str, Any], container: str, family: str, pixel_format: str
) -> None:
    encoder = choose_encoder(EncoderSettings(), facts(**stream), container)
    assert encoder.name in FAMILIES[family]
    assert pixel_format in encoder.pixel_format


@pytest.mark.parametrize("codec", ["libsvtav1", "libvpx-vp9"])
def test_a_nonsensical_rate_does_not_reach_the_encoder(codec: str) -> None:
    """Files with a variable rate declare 1000, 30000 and more frames per second."""
    encoder = choose_encoder(EncoderSettings(codec), facts(rate=Fraction(30000)), "matroska")
    assert encoder.name == codec


def test_quality_goes_to_the_option_that_the_encoder_has() -> None:
    assert choose_encoder(EncoderSettings("libx264", 22.5), facts(), "mp4").options["crf"] == "22.5"
    with pytest.raises(EncoderError, match="no constant-quality mode; omit --crf"):
        choose_encoder(EncoderSettings("prores_ks", 5), facts(), "mov")


@pytest.mark.parametrize(
    ("codec", "stream", "container", "reason"),
    [
        ("abacus", {}, "mp4", "FFmpeg has no such encoder"),
        ("h264", {}, "webm", "does not support"),
        ("mpeg4", {"bits": 10}, "mp4", "it has no 10-bit"),
        ("libx264", {"width": 40000}, "mp4", "libx264: "),
    ],
)
def test_an_encoder_that_does_not_open_says_why(
    codec: str, stream: dict[str, Any], container: str, reason: str
) -> None:
    with pytest.raises(EncoderError, match="no encoder opens for") as caught:
        choose_encoder(EncoderSettings(codec), facts(**stream), container)
    assert reason in str(caught.value)
    assert "--codec" in str(caught.value)
