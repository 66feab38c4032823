"""Static HDR metadata arrives in the output."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.video.clip import Clip
from tests.cli.running import invoke

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
KINDS = {"Mastering display metadata", "Content light level metadata"}


def hdr_clip(path: Path) -> Path:
    """Write two 10-bit frames with the metadata of a common HDR10 master."""
    with av.open(path, "w") as output:
        options = {"x265-params": f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"}
        stream = output.add_stream("libx265", 25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))
            frame.pts = number
            output.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        output.mux(stream.encode())
    return path


def probed(path: Path) -> dict[str, dict[str, Any]]:
    """What ffprobe reads: numbers by kind of side data, as decimals."""
    command = ["ffprobe", "-v", "error", "-show_frames", "-of", "json", str(path)]
    frames = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["frames"]
    found = {}
    for each in frames[0].get("side_data_list", ()):
        if each["side_data_type"] in KINDS:
            kind = each.pop("side_data_type")
            found[kind] = {name: eval_fraction(value) for name, value in each.items()}
    return found


def eval_fraction(value: str | int) -> float:
    top, _, bottom = str(value).partition("/")
    return float(top) / float(bottom or 1)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_hdr10_metadata_is_copied(bundle: Bundle, tmp_path: Path, codec: str) -> None:
    source, target = hdr_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    result = invoke(
        main, source, "-o", target, "--bundle", bundle.path, "--iters", 0, "--codec", codec
    )
    assert result.exit_code == 0, result.output
    assert "HDR" not in result.stderr
    before, after = probed(source), probed(target)
    assert set(before) == set(after) == KINDS
    for kind, values in before.items():
        assert after[kind] == pytest.approx(values, rel=1e-3, abs=1e-3)


def test_an_encoder_that_cannot_write_it_is_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mkv")
    options = ("--bundle", bundle.path, "--iters", 0, "--codec", "libx264")
    result = invoke(main, source, "-o", tmp_path / "out.mkv", *options)
    assert result.exit_code == 0 and "HDR metadata" in result.stderr and "libx265" in result.stderr


def test_the_numbers_are_read(tmp_path: Path) -> None:
    clip = Clip(hdr_clip(tmp_path / "in.mkv"))
    clip.close()
    hdr = clip.facts.hdr
    assert hdr is not None and hdr.light == (1000, 400)
    assert hdr.luminance == pytest.approx((1000, 0.005))
    assert hdr.primaries[0] == pytest.approx((0.68, 0.32))
