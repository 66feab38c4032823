"""Measured service times of one worker: decode, upscale and encode, on one core of this machine.

    python -m tools.fleet.service_times benchmarks/results/service-times.json

Frames are cut from the sample photo. A worker of the fleet has one core, so everything runs on one
thread; run it on an otherwise idle machine.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from PIL import Image

import ikc_deploy
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.weights import DEFAULT_WEIGHTS

PHOTO: Final = (384, 512)
"""Height and width of the LR photo."""
FRAME: Final = (270, 480)
"""Height and width of an LR frame whose SR frame is 1080p at x4."""
_ROUNDS: Final = 3
_CODED_FRAMES: Final = 12
_SAMPLE: Final = Path(__file__).parents[2] / "samples" / "kodim23.png"


def measure_service_times() -> dict[str, Any]:
    """Measure the stages of a photo and of a video frame with the default weights.

    Returns:
        The machine, the weights, and for "photo" and "frame" the seconds of each stage (medians)
        and the bytes of input and output, for a frame as means over a short clip.
    """
    with ikc_deploy.load(backend="onnxruntime", threads=1) as upscaler:
        return {
            "machine": describe_machine(),
            "weights": DEFAULT_WEIGHTS,
            "threads": 1,
            "photo": _photo(upscaler),
            "frame": _frame(upscaler),
        }


def _photo(upscaler: ikc_deploy.Upscaler) -> dict[str, Any]:
    image = _sample(PHOTO)
    source = _png(image)
    sr = upscaler(image).image
    return {
        "decode": _median(lambda: np.asarray(Image.open(io.BytesIO(source)))),
        "upscale": _median(lambda: upscaler(image)),
        "encode": _median(lambda: _png(sr)),
        "bytes": [len(source), len(_png(sr))],
    }


def _frame(upscaler: ikc_deploy.Upscaler) -> dict[str, Any]:
    image = _sample(FRAME)
    sr = upscaler(image).image
    lr_clip, sr_clip = _coded(image), _coded(sr)
    return {
        "decode": _median(lambda: _decoded(lr_clip, FRAME)) / _CODED_FRAMES,
        "upscale": _median(lambda: upscaler(image)),
        "encode": _median(lambda: _coded(sr)) / _CODED_FRAMES,
        "bytes": [sum(map(len, clip)) / _CODED_FRAMES for clip in (lr_clip, sr_clip)],
    }


def _sample(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(read_rgb(_SAMPLE)[: size[0], : size[1]])


def _png(image: NDArray[np.uint8]) -> bytes:
    coded = io.BytesIO()
    Image.fromarray(image).save(coded, "png")
    return coded.getvalue()


def _coded(image: NDArray[np.uint8]) -> list[bytes]:
    """Return the packets of a clip of the image, which moves by two pixels from frame to frame."""
    context = _context("libx264", image.shape[:2], "w")
    packets = []
    for number in range(_CODED_FRAMES):
        moved = np.ascontiguousarray(np.roll(image, 2 * number, axis=1))
        frame = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    return [bytes(packet) for packet in [*packets, *context.encode()]]


def _decoded(packets: list[bytes], size: tuple[int, int]) -> list[NDArray[Any]]:
    context = _context("h264", size, "r")
    frames = [frame for packet in packets for frame in context.decode(av.Packet(packet))]
    return [frame.to_ndarray(format="rgb24") for frame in [*frames, *context.decode()]]


def _context(codec: str, size: tuple[int, int], mode: Any) -> VideoCodecContext:
    context = av.CodecContext.create(codec, mode)
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1
    if mode == "w":
        context.height, context.width = size
        context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    return context


def _median(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    report = measure_service_times()
    write_atomically(Path(sys.argv[1]), f"{json.dumps(report, indent=2)}\n".encode())
