from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy.errors import VideoError
from ikc_deploy.video.camera import CameraSettings
from ikc_deploy.video.clip import Span
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.names import PIPE, is_numbered, is_stream
from ikc_deploy.video.raw import RawFormat
from ikc_deploy.video.request import Request

IN, OUT = Path("in.mp4"), Path("out.mp4")
CAMERA = CameraSettings("0")
RAW, Y4M = RawFormat(), RawFormat("y4m")
IMAGES = Path("gone/%04d.png")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give one clip"),
        ({"source": IN, "target": OUT, "camera": CAMERA}, "give one clip"),
        ({"source": IN}, "name the output with -o"),
        ({"source": IN, "target": Path("out.avi")}, "invalid video output"),
        ({"source": IN, "target": PIPE}, "needs a raw format"),
        ({"source": PIPE, "target": OUT}, "needs a raw format"),
        ({"source": PIPE, "target": Path("a.png")}, "for an image, give files"),
        ({"source": Path("a.HEIC"), "target": PIPE}, "for an image, give files"),
        ({"source": IN, "target": OUT, "raw": RAW}, "--raw is for pipes"),
        ({"source": IN, "target": OUT, "rate": Fraction(25)}, "--rate is for images"),
        ({"source": PIPE, "target": OUT, "raw": Y4M, "rate": Fraction(9)}, "leave out --rate"),
        ({"source": IMAGES, "target": IMAGES}, "would be overwritten"),
        ({"source": IMAGES, "target": OUT, "deinterlace": "on"}, "not for images"),
        ({"source": PIPE, "target": OUT, "raw": RAW, "rate": Fraction(0)}, "above 0 frames"),
        ({"source": Path(), "target": OUT, "span": Span(Fraction(1))}, "are for clips"),
        ({"camera": CAMERA, "target": OUT, "span": Span(Fraction(1))}, "no --start"),
        ({"camera": CAMERA, "target": OUT, "resume": True}, "can be read again"),
        ({"source": IN, "target": PIPE, "raw": RAW, "resume": True}, "can be read again"),
        ({"camera": CAMERA, "target": OUT, "preview": True}, "--preview is for clips"),
        (
            {"source": IN, "target": Path("%d.png"), "encoder": EncoderSettings("hevc")},
            "--codec and --crf are for video files",
        ),
        ({"source": IN, "target": IN}, "would be overwritten"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(VideoError, match=message):
        Request(**asked)


def test_names_tell_video_from_pictures(tmp_path: Path) -> None:
    assert is_stream([IN], None) and is_stream([PIPE], OUT) and is_stream([Path("x.bin")], OUT)
    assert is_stream([tmp_path], OUT) and is_stream([tmp_path], Path("frames/%04d.png"))
    assert is_stream([IMAGES], OUT) and is_stream([IMAGES], Path("frames/%04d.png"))
    # One image has one output, whatever its name.
    assert not is_stream([Path("p.png")], Path("50%5d.png"))
    assert not is_stream([Path("p.png")], Path("50%discount.png"))
    assert not is_numbered(Path("100%dark.png")) and is_numbered(Path("%06d.png"))
    (tmp_path / "%d.png").touch()
    assert not is_stream([tmp_path / "%d.png"], Path("%d.jpg"))
    assert not is_stream([Path("a.png"), tmp_path], Path("out"))
    (tmp_path / "folder.mp4").mkdir()
    assert not is_stream([tmp_path / "folder.mp4"], Path("out"))
